// Runs as a table: the columns that a trade-off is judged by.

import { chip, h, metric, table, time } from "./dom.js";
import { pinBox } from "./pins.js";

export const kMetricColumns = ["top1", "agreement", "sqnr_db", "size_bytes", "size_ratio", "sparsity",
                               "latency_ms_p50", "latency_ratio"];

export function runName(run) {
  return [run.model, run.chain].filter(Boolean).join(" ");  // what a front leaves out has neither
}

function verdict(run) {
  if (run.error) return chip(run.error.code ?? "error", "bad");
  if (run.metrics?.slower) return chip("slower", "warn");
  return "";
}

export function runTable(runs, { columns = kMetricColumns, empty } = {}) {
  const present = columns.filter((name) => runs.some((run) => run.metrics?.[name] !== undefined));
  return table([
    { title: "Pin", cell: (run) => pinBox(run.id, runName(run)) },
    { title: "Run", cell: (run) => h("a", { href: `#/runs/${run.id}` }, String(run.id)) },
    { title: "Model", cell: (run) => run.model },
    { title: "Chain", cell: (run) => run.chain },
    ...present.map((name) => ({ title: name, number: true, cell: (run) => metric(name, run.metrics?.[name]) })),
    { title: "", cell: verdict },
    { title: "Experiment", cell: (run) => run.experiment },
    { title: "When", cell: (run) => time(run.created_ms) },
  ], runs, { empty });
}
