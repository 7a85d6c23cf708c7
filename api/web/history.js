// All runs, with the filter language, sorting and pages.

import { get } from "./api.js";
import { h, problem, show } from "./dom.js";
import { kMetricColumns, runTable } from "./run_table.js";

const kPage = 50;
const kExamples = [
  'top1_drop < 0.01 and size_ratio <= 0.3',
  'experiment = "nightly" and not error is null',
  'chain like "p80%" and latency_ratio < 0.5',
];

// A form whose values are the address's, so that a view can be linked to and gone back to.
export function addressForm(path, fields, query) {
  const inputs = fields.map(({ name, label, placeholder, grow, filter }) =>
    h("label", { class: grow ? "grow" : null }, label,
      h("input", { name, value: query.get(name) ?? "", placeholder, "data-filter": filter ?? false,
                   spellcheck: "false", autocomplete: "off" })));
  return h("form", { class: "row", onsubmit: (event) => {
    event.preventDefault();
    const given = [...new FormData(event.target)].filter(([, value]) => value !== "");
    location.hash = `#${path}?${new URLSearchParams(given)}`;
  } }, inputs, h("button", { class: "main" }, "Show"));
}

function pages(query, page, count) {
  const shown = new URLSearchParams(query);
  const first = new URLSearchParams(query);
  first.delete("after");
  if (page.next !== null) shown.set("after", page.next);
  return h("p", { class: "row" },
           h("span", {}, `${count} run${count === 1 ? "" : "s"}`),
           query.has("after") ? h("a", { href: `#/runs?${first}` }, "First page") : null,
           page.next === null ? null : h("a", { href: `#/runs?${shown}` }, "Next page"));
}

export async function showHistory(view, { query }) {
  const list = h("div", {});
  const sort = query.get("sort") ?? "-id";
  const columns = (query.get("columns") ?? "").split(",").filter(Boolean);
  show(view, h("h1", {}, "History"),
       addressForm("/runs", [
         { name: "filter", label: "Filter", grow: true, filter: true, placeholder: kExamples[0] },
         { name: "sort", label: "Sort", placeholder: "-id" },
         { name: "columns", label: "Metrics", placeholder: kMetricColumns.slice(0, 3).join(",") },
       ], query),
       h("p", { class: "hint" }, "Such as: ",
         kExamples.flatMap((text) => [h("a", { href: `#/runs?${new URLSearchParams({ filter: text })}` }, text), " · "])),
       list);
  try {
    const page = await get("/v1/runs", { filter: query.get("filter"), sort, limit: kPage, after: query.get("after"), count: 1 });
    const tableOfRuns = runTable(page.runs, { columns: columns.length > 0 ? columns : kMetricColumns,
                                              empty: "No run matches." });
    show(list, pages(query, page, page.count), tableOfRuns);
  } catch (error) {
    show(list, problem(error), pointAt(error, query.get("filter")));
  }
}

// "filter:12" names a byte of the filter: show the text with a mark under it.
export function pointAt(error, filter) {
  const found = /filter:(\d+)/.exec(error.message);
  if (!found || !filter) return null;
  return h("pre", {}, `${filter}\n${" ".repeat(Math.max(0, Number(found[1]) - 1))}^`);
}
