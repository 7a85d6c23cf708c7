// Batches: what each night made better or worse than the last one.

import { follow, get, send } from "./api.js";
import { chip, h, metric, problem, show, table, time } from "./dom.js";

function countsOf(batch) {
  return Object.entries(batch.counts ?? {}).filter(([, count]) => count > 0).map(([name, count]) => `${count} ${name}`).join(", ");
}

export async function showNights(view) {
  const batches = [];
  for (let after = null;;) {
    const page = await get("/v1/batches", { limit: 1000, after });
    batches.push(...page.batches);
    if (page.next === null) break;
    after = page.next;
  }
  show(view, h("h1", {}, "Nights"), table([
    { title: "Night", cell: (batch) => h("a", { href: `#/nights/${batch.id}` }, String(batch.id)) },
    { title: "Series", cell: (batch) => batch.name },
    { title: "State", cell: (batch) => chip(batch.state) },
    { title: "Models", cell: countsOf },
    { title: "Begun", cell: (batch) => time(batch.created_ms) },
  ], batches.reverse(), { empty: "No batch yet: POST /v1/batches, or pare batch." }));
}

// Metrics that have changed: each leads to the two runs side by side.
function changes(title, rows, kind) {
  if (rows.length === 0) return [];
  return [h("h2", { class: kind }, title), table([
    { title: "Model", cell: (row) => row.model },
    { title: "Chain", cell: (row) => row.chain },
    { title: "Metric", cell: (row) => row.metric },
    { title: "Before", number: true, cell: (row) => metric(row.metric, row.before) },
    { title: "Now", number: true, cell: (row) => metric(row.metric, row.after) },
    { title: "", cell: (row) => h("a", { href: `#/compare?runs=${row.run_before},${row.run}` }, "compare") },
    { title: "Changed", cell: (row) => [row.model_changed && "model", row.recipe_changed && "recipe"].filter(Boolean).join(", ") },
  ], rows)];
}

function names(title, rows, kind) {
  if (rows.length === 0) return [];
  const text = (row) => [row.model, row.chain].filter(Boolean).join(" ") + (row.error ? `: ${row.error.message ?? row.error}` : "");
  return [h("h2", { class: kind }, title), h("ul", {}, rows.map((row) => h("li", {}, text(row))))];
}

function reportPart(report) {
  return [
    h("p", {}, chip(report.verdict, report.verdict === "ok" ? "good" : "bad"), " ",
      report.against === null ? "the first night of its series" : h("a", { href: `#/nights/${report.against.id ?? report.against}` }, "against the night before")),
    ...(report.warnings ?? []).map((text) => h("p", { class: "warn" }, text)),
    changes("Worse", report.worse, "bad"), names("Failed newly", report.failed_newly, "bad"),
    changes("Better", report.better, "good"), names("Fixed", report.fixed, "good"),
    names("Still failing", report.failed_still, "warn"), names("New", report.new), names("Vanished", report.vanished),
  ];
}

const kItemColumns = [
  { title: "Model", cell: (item) => item.model ?? item.path },
  { title: "Decision", cell: (item) => chip(item.decision) },
  { title: "Job", cell: (item) => (item.job ? h("a", { href: `#/jobs/${item.job}` }, String(item.job)) : "") },
  { title: "State", cell: (item) => (item.job_state ? chip(item.job_state, `state-${item.job_state}`) : "") },
  { title: "Why", wrap: true, cell: (item) => item.reason?.message ?? item.reason },
];

export async function showNight(view, { id, signal }) {
  const place = h("div", {});
  const draw = async () => {
    const [batch, report] = await Promise.all([get(`/v1/batches/${id}`), get(`/v1/batches/${id}/report`)]);
    const isOver = !["scanning", "running"].includes(batch.state);
    const cancel = h("button", { onclick: () => send("DELETE", `/v1/batches/${id}`).catch((error) => place.append(problem(error))) }, "Cancel");
    show(place, h("p", {}, chip(batch.state), " ", countsOf(batch), " ", isOver ? null : cancel),
         reportPart(report), h("h2", {}, "Models"), table(kItemColumns, batch.items));
  };
  show(view, h("h1", {}, `Night ${id}`), place);
  await draw();
  follow(`/v1/batches/${id}/events`, signal, draw, { ends: true }).catch((error) => place.append(problem(error)));
}
