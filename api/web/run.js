// One run: what it is worth, what each pass did, and bars for each layer.

import { download, get, send } from "./api.js";
import { bars } from "./charts.js";
import { chip, h, metric, problem, show, table, time } from "./dom.js";
import { pinBox } from "./pins.js";
import { kMetricColumns, runName } from "./run_table.js";

// What passes and the evaluation report of one node, merged by the node's name, in the order in which they are first named.
export function layersOf(run) {
  const layers = new Map();
  const at = (label) => {
    const name = label.replace(/^[A-Z]\w* (?!producing )/, "");  // passes say "Conv conv_1"
    if (!layers.has(name)) layers.set(name, { name });
    return layers.get(name);
  };
  for (const { report } of run.reports ?? []) {
    for (const row of report?.changed ?? []) {
      if (typeof row.node !== "string") continue;
      const layer = at(row.node);
      if (typeof row.density === "number") layer.sparsity = 1 - row.density;
      if (typeof row.output_sqnr_db === "number") layer.pruned_sqnr_db = row.output_sqnr_db;
    }
    for (const row of report?.sensitivity ?? []) {
      if (typeof row.sqnr_db === "number") at(row.node).int8_sqnr_db = row.sqnr_db;
    }
    for (const row of report?.layers ?? []) {
      const layer = at(row.node);
      if (typeof row.density === "number") layer.sparsity = 1 - row.density;
      if (typeof row.sqnr_db === "number") layer.sqnr_db = row.sqnr_db;
      if (typeof row.time_us === "number") layer.time_us = row.time_us;
      for (const key of ["op_type", "kernel", "input_scale", "output_scale"]) layer[key] = row[key];
    }
  }
  return [...layers.values()];
}

const kBars = [
  ["sparsity", "sparsity", "--bar-1"],
  ["pruned_sqnr_db", "SQNR of the layer's output after pruning, dB", "--bar-2"],
  ["int8_sqnr_db", "SQNR with only this layer in INT8, dB", "--bar-2"],
  ["sqnr_db", "SQNR of the layer's output against the input model, dB", "--bar-2"],
  ["time_us", "time, µs", "--bar-3"],
];

function layerPart(run, signal) {
  const layers = layersOf(run);
  if (layers.length === 0) return [];
  const has = (key) => layers.some((layer) => layer[key] !== undefined);
  // The table has all; a bar is for a layer that has weights or takes time.
  const total = layers.reduce((sum, layer) => sum + (layer.time_us ?? 0), 0);
  const drawn = layers.filter((layer) => (layer.time_us ?? 0) >= 0.01 * total ||
    kBars.some(([key]) => key !== "time_us" && layer[key] !== undefined));
  const labels = drawn.map((layer) => layer.name);
  const charts = kBars.filter(([key]) => has(key)).map(([key, title, color]) =>
    bars({ labels, values: drawn.map((layer) => layer[key] ?? null), title, color, signal }));
  const columns = [{ title: "Layer", cell: (layer) => layer.name },
                   ...kBars.filter(([key]) => has(key)).map(([key, title]) => ({
                     title, number: true, cell: (layer) => layer[key]?.toPrecision(4) ?? "" }))];
  const kTexts = [["op_type", "operator"], ["kernel", "kernel"]];
  const kScales = [["input_scale", "scale of the input"], ["output_scale", "scale of the output"]];
  columns.push(...kTexts.filter(([key]) => has(key)).map(([key, title]) => ({ title, cell: (layer) => layer[key] ?? "" })),
               ...kScales.filter(([key]) => has(key)).map(([key, title]) => ({
                 title, number: true, cell: (layer) => layer[key]?.toPrecision(4) ?? "" })));
  return [h("h2", {}, "Layers"), charts, h("details", {}, h("summary", {}, "As a table"), table(columns, layers))];
}

function skippedPart(run) {
  const rows = (run.reports ?? []).flatMap(({ pass, report }) =>
    (report?.skipped ?? []).map((row) => ({ pass, ...row })));
  const warnings = (run.reports ?? []).flatMap(({ report }) => report?.warnings ?? []);
  return [
    ...warnings.map((text) => h("p", { class: "warn" }, typeof text === "string" ? text : JSON.stringify(text))),
    rows.length === 0 ? null : h("details", { open: rows.length < 8 }, h("summary", {}, `Left as it was: ${rows.length}`),
      table([{ title: "Pass", cell: (row) => row.pass }, { title: "Node", cell: (row) => row.node ?? row.weight },
             { title: "Reason", wrap: true, cell: (row) => row.reason }], rows)),
  ];
}

function stepText({ pass, ...options }) {
  return `${pass} ${JSON.stringify(options)}`;
}

// The note can be changed in place.
function noteForm(run) {
  const said = h("span", { role: "status" });
  return h("form", { class: "row", onsubmit: async (event) => {
    event.preventDefault();
    try {
      await send("PATCH", `/v1/runs/${run.id}`, { note: event.target.elements.note.value });
      said.textContent = "saved";
    } catch (error) {
      said.textContent = error.message;
    }
  } }, h("label", { class: "grow" }, "Note", h("input", { name: "note", value: run.note ?? "" })), h("button", {}, "Save"), said);
}

function headPart(run) {
  const cards = kMetricColumns.filter((name) => run.metrics[name] !== undefined)
    .map((name) => h("div", { class: "card" }, name, h("b", {}, metric(name, run.metrics[name]))));
  const model = h("button", { class: "main", onclick: () => download(`/v1/runs/${run.id}/model`, `${run.model}-${run.chain}.onnx`) },
                  "Download the ONNX file");
  const tflite = h("button", { onclick: () => download(`/v1/runs/${run.id}/model?form=tflite`, `${run.model}-${run.chain}.tflite`) },
                   "Download the TensorFlow Lite file");
  return [
    h("h1", {}, `Run ${run.id}: ${runName(run)}`),
    run.error ? h("p", { class: "error", role: "alert" }, `${run.error.code}: ${run.error.message}`) : null,
    h("p", { class: "row" }, run.artifact ? model : null, run.artifact && run.lineage?.tflite_sha256 ? tflite : null,
      h("label", { class: "check" }, pinBox(run.id, runName(run)), "Pin for comparison"),
      h("a", { href: `#/jobs/${run.job}` }, `Job ${run.job}`),
      h("a", { href: `#/pareto?job=${run.job}` }, "Front of its job"),
      ...Object.entries(run.tags ?? {}).map(([name, value]) => chip(`${name}: ${value}`))),
    h("div", { class: "cards" }, cards),
  ];
}

function factsPart(run) {
  const facts = [
    ["Experiment", run.experiment], ["When", time(run.created_ms)], ["Artifact SHA-256", run.artifact],
    ["Machine", `${run.machine.cpu}, ${run.machine.isa}, ${run.machine.threads} thread(s), pared ${run.machine.version}`],
    ...run.steps.map((step, index) => [`Pass ${index + 1}`, stepText(step)]),
  ].filter(([, value]) => value);
  return [h("h2", {}, "Facts"), h("dl", {}, facts.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
          noteForm(run)];
}

export async function showRun(view, { id, signal }) {
  const run = await get(`/v1/runs/${id}`);
  const metrics = Object.entries(run.metrics);
  show(view, headPart(run), skippedPart(run), layerPart(run, signal), factsPart(run),
       h("details", {}, h("summary", {}, `All ${metrics.length} metrics`),
         table([{ title: "Metric", cell: ([name]) => name },
                { title: "Value", number: true, cell: ([name, value]) => metric(name, value) }], metrics)),
       h("details", {}, h("summary", {}, "What each pass reported"),
         h("pre", { tabindex: 0 }, JSON.stringify(run.reports, null, 1))));
}
