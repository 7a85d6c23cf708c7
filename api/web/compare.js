// Runs side by side: only what differs.

import { get } from "./api.js";
import { h, metric, show, table } from "./dom.js";

function cellText(at, value) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "number") return metric(at.split("/").pop(), value);
  return typeof value === "string" ? value : JSON.stringify(value);
}

// For metrics, how the others stand to the first run.
function change(values, index) {
  const [first] = values;
  const value = values[index];
  if (index === 0 || typeof first !== "number" || typeof value !== "number" || first === 0) return null;
  const percent = 100 * (value - first) / Math.abs(first);
  return h("small", { class: "hint" }, ` ${percent > 0 ? "+" : ""}${percent.toPrecision(3)} %`);
}

const kParts = [
  ["Metrics", /^\/metrics\//],
  ["Options", /^\/(steps|spec)\//],
  ["Layers", /^\/reports\//],
  ["Else", /^/],
];

export async function showCompare(view, { query }) {
  const ids = (query.get("runs") ?? "").split(",").filter(Boolean);
  show(view, h("h1", {}, "Compare"),
       h("p", { class: "hint" }, "Pin two runs or more, in the history or a plot, and press Compare."));
  if (ids.length < 2) return;
  const compared = await get("/v1/compare", { runs: ids.join(",") });
  let rest = compared.differences;
  const columnsFor = (pattern) => [
    { title: "What", cell: (row) => row.at.replace(pattern, "") },
    ...ids.map((id, index) => ({
      title: h("a", { href: `#/runs/${id}` }, `Run ${id}`),
      wrap: true,
      cell: (row) => h("span", {}, cellText(row.at, row.values[index]),
                       row.at.startsWith("/metrics/") ? change(row.values, index) : null),
    })),
  ];
  const parts = kParts.flatMap(([title, pattern]) => {
    const rows = rest.filter((row) => pattern.test(row.at));
    rest = rest.filter((row) => !pattern.test(row.at));
    return rows.length === 0 ? [] : [h("h2", {}, title), table(columnsFor(pattern), rows)];
  });
  show(view, h("h1", {}, `Compare ${ids.join(", ")}`),
       parts.length > 0 ? parts : h("p", {}, "These runs do not differ."));
}
