// Jobs as they run, told by server-sent events.

import { follow, get, send } from "./api.js";
import { chip, duration, h, problem, show, table, time } from "./dom.js";
import { runTable } from "./run_table.js";
import { searchView } from "./search.js";

const kJobsShown = 100;

function stateChip(job) {
  return chip(job.state, `state-${job.state}`);
}

function isOver(job) {
  return job.state !== "queued" && job.state !== "running";
}

// How far a job is: a bar, the pass under way, and when it may end.
function progressOf(job) {
  const progress = job.progress;
  if (!progress) return "";
  if (isOver(job)) return progress.best ? `best: ${progress.best}` : "";
  const percent = progress.percent ?? 0;
  const layer = progress.layer ? `${progress.layer} (${progress.layer_index} of ${progress.layer_count})` : null;
  const end = progress.estimated_end_ms;
  const words = [`${Math.round(percent)} %`, progress.chain, progress.step, layer,
                 end ? `about ${duration(Math.max(0, end - Date.now()))} left` : null];
  return h("span", {},
           h("progress", { max: 100, value: percent, "aria-label": `Job ${job.id}` }), " ",
           words.filter(Boolean).join(" · "));
}

function errorOf(job) {
  return job.error ? h("span", { class: "bad" }, job.error.message ?? job.error.detail ?? JSON.stringify(job.error)) : "";
}

async function cancel(job, place) {
  try {
    await send("DELETE", `/v1/jobs/${job.id}`);
  } catch (error) {
    place.append(problem(error));
  }
}

const kColumns = [
  { title: "Job", cell: (job) => h("a", { href: `#/jobs/${job.id}` }, String(job.id)) },
  { title: "State", cell: stateChip },
  { title: "Model", cell: (job) => job.spec?.model },
  { title: "Experiment", cell: (job) => job.spec?.experiment },
  { title: "Progress", cell: progressOf },
  { title: "Submitted", cell: (job) => time(job.created_ms) },
  { title: "Error", wrap: true, cell: errorOf },
];

export async function showJobs(view, { signal }) {
  const jobs = new Map();
  const list = h("div", {});
  const draw = () => {
    const newest = [...jobs.values()].sort((a, b) => b.id - a.id).slice(0, kJobsShown);
    show(list, table(kColumns, newest, { empty: "No jobs yet: submit one." }));
  };
  show(view, h("h1", {}, "Jobs"),
       h("p", { class: "hint" }, `The newest ${kJobsShown}, live. `, h("a", { href: "#/submit" }, "Submit a job")), list);
  for (const job of await newestJobs()) jobs.set(job.id, job);
  draw();
  follow("/v1/events", signal, async (event, told) => {
    if (typeof told.id !== "number") return;
    const known = jobs.get(told.id);
    jobs.set(told.id, known ? { ...known, ...told } : await get(`/v1/jobs/${told.id}`));
    draw();
  }).catch((error) => list.append(problem(error)));
}

// The last of the daemon's pages, which begin with the oldest job.
async function newestJobs() {
  let newest = [];
  for (let after = null;;) {
    const page = await get("/v1/jobs", { limit: 1000, after });
    newest = [...newest, ...page.jobs].slice(-kJobsShown);
    if (page.next === null) return newest;
    after = page.next;
  }
}

export async function showJob(view, { id, signal }) {
  let job = await get(`/v1/jobs/${id}`);
  const head = h("div", {});
  const search = h("div", {});
  const runs = h("div", {});
  const drawHead = () => {
    const button = h("button", { onclick: () => cancel(job, head) }, "Cancel");
    show(head, h("p", {}, stateChip(job), " ", progressOf(job), " ", isOver(job) ? null : button),
         job.error ? h("p", {}, errorOf(job)) : null,
         (job.progress?.degraded ?? []).length > 0
           ? h("p", { class: "warn" }, `Degraded: ${JSON.stringify(job.progress.degraded)}`) : null);
    show(search, searchView(job));
  };
  const drawRuns = () => show(runs, runTable(job.runs ?? []));
  show(view, h("h1", {}, `Job ${id}: ${job.spec.model}`), head, search, h("h2", {}, "Runs"), runs,
       h("p", {}, h("a", { href: `#/pareto?job=${id}` }, "Front of this job"), " · ",
         h("a", { href: `#/submit?job=${id}` }, "Submit a job like this")),
       h("h2", {}, "Spec"), h("pre", { tabindex: 0 }, JSON.stringify(job.spec, null, 1)));
  drawHead();
  drawRuns();
  follow(`/v1/jobs/${id}/events`, signal, async (event, told) => {
    job = { ...job, ...told };
    drawHead();
    if (isOver(job)) job = await get(`/v1/jobs/${id}`);
    drawRuns();
  }, { ends: true }).catch((error) => head.append(problem(error)));
}
