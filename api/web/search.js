// How a job's search stands: what it has tried, its front, what failed.

import { chip, duration, h, metric, table } from "./dom.js";

function choiceText(choice) {
  return Object.entries(choice).map(([name, value]) =>
    `${name} = ${typeof value === "string" ? value : JSON.stringify(value)}`).join(", ");
}

function summary(search) {
  const words = [`${search.candidates} of ${search.budget} candidates`, duration(1000 * search.seconds),
                 search.ended ? `ended: ${search.ended}` : null];
  return h("p", {}, search.goal_met ? chip("bounds met", "state-succeeded") : chip("bounds not met", "warn"), " ",
           words.filter(Boolean).join(" · "));
}

function frontTable(search) {
  const measured = [...new Set(search.front.flatMap((entry) => Object.keys(entry.values)))];
  return table([
    { title: "Run", cell: (entry) => h("a", { href: `#/runs/${entry.run}` }, String(entry.run)) },
    { title: "Candidate", cell: (entry) => entry.chain },
    { title: "", cell: (entry) => (entry.run === search.best?.run ? chip("best", "state-succeeded") : "") },
    { title: "Choice", wrap: true, cell: (entry) => choiceText(entry.choice) },
    ...measured.map((name) => ({ title: name, number: true, cell: (entry) => metric(name, entry.values[name]) })),
    { title: "Breaks", wrap: true, cell: (entry) => entry.broken.join(", ") },
  ], search.front, { empty: "No candidate has given a model yet." });
}

function failedTable(failed) {
  return table([
    { title: "Run", cell: (entry) => h("a", { href: `#/runs/${entry.run}` }, String(entry.run)) },
    { title: "Candidate", cell: (entry) => entry.chain },
    { title: "Choice", wrap: true, cell: (entry) => choiceText(entry.choice) },
    { title: "Reason", wrap: true, cell: (entry) => entry.reason },
  ], failed);
}

// Nothing where the job has no search, or it has not begun.
export function searchView(job) {
  const search = job.search;
  if (!search) return [];
  return [h("h2", {}, "Search"), summary(search), h("h3", {}, "Front"), frontTable(search),
          search.failed.length > 0 ? [h("h3", {}, "Failed"), failedTable(search.failed)] : [],
          h("p", {}, h("a", { href: `#/runs?filter=${encodeURIComponent(`job = ${job.id}`)}` }, "All candidates"))];
}
