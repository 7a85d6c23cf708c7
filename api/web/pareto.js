// The trade-off: runs that no other beats, plotted; points lead to runs and to comparisons.

import { get } from "./api.js";
import { scatter } from "./charts.js";
import { h, metric, problem, show, table } from "./dom.js";
import { addressForm, pointAt } from "./history.js";
import { pinBox, togglePin } from "./pins.js";
import { runName } from "./run_table.js";

const kKinds = {
  front: { title: "front (diamond: knee)", color: "--bar-1", line: true },
  dominated: { title: "beaten by another", color: "--quiet", shape: "crossRot" },
};
const kPresets = [
  ["Size and top-1", "size_bytes:min,top1:max"],
  ["Latency and top-1", "latency_ms_p50:min,top1:max"],
  ["Size and SQNR", "size_bytes:min,sqnr_db:max"],
  ["All three", "size_bytes:min,top1:max,latency_ms_p50:min"],
];

// Runs that another beats come with their values alone, in the order of the objectives.
function valueOf(answer, run, name) {
  const index = answer.objectives.findIndex((objective) => objective.name === name);
  return run.values?.[index] ?? run.metrics?.[name] ?? run[name];
}

// The first objective goes to the right, the second up, the third is the size of the point: the greater, the better.
function pointsOf(answer) {
  const [x, y, z] = answer.objectives;
  const sizes = z ? answer.runs.map((run) => valueOf(answer, run, z.name)) : [];
  const [least, most] = [Math.min(...sizes), Math.max(...sizes)];
  return answer.runs.map((run) => {
    const share = z && most > least ? (valueOf(answer, run, z.name) - least) / (most - least) : 0.3;
    const kind = run.dominated ? "dominated" : "front";
    const words = answer.objectives.map(({ name }) => `${name} ${metric(name, valueOf(answer, run, name))}`);
    return { x: valueOf(answer, run, x.name), y: valueOf(answer, run, y.name), kind, shape: run.knee ? "rectRot" : undefined, id: run.id, name: runName(run),
             r: 4 + 8 * (z?.direction === "min" ? 1 - share : share),
             label: `run ${run.id} ${runName(run)}: ${words.join(", ")}` };
  }).filter((point) => typeof point.x === "number" && typeof point.y === "number").sort((a, b) => a.x - b.x);
}

function isWide(points) {
  const xs = points.map((point) => point.x);
  return Math.min(...xs) > 0 && Math.max(...xs) / Math.min(...xs) > 30;
}

function notes(answer) {
  const words = [`${answer.candidates} candidates`];
  if (answer.excluded > 0) words.push(`${answer.excluded} left out: an objective is missing or not a number`);
  return [h("p", { class: "hint" }, words.join(", ")),
          ...(answer.warnings ?? []).map((text) => h("p", { class: "warn" }, text))];
}

export async function showPareto(view, { query, signal }) {
  const result = h("div", {});
  const objectives = query.get("objectives") ?? kPresets[0][1];
  const presets = kPresets.map(([title, value]) => {
    const address = new URLSearchParams(query);
    address.set("objectives", value);
    return [h("a", { href: `#/pareto?${address}`, "aria-current": value === objectives ? "true" : null }, title), " · "];
  });
  show(view, h("h1", {}, "Fronts"), h("p", {}, presets),
       addressForm("/pareto", [
         { name: "objectives", label: "Objectives", grow: true, placeholder: objectives },
         { name: "filter", label: "Filter", grow: true, filter: true, placeholder: 'model = "yolov8n"' },
         { name: "experiment", label: "Experiment" }, { name: "model", label: "Model" }, { name: "job", label: "Job" },
       ], query), result);
  let answer;
  try {
    answer = await get("/v1/pareto", { objectives, filter: query.get("filter"), experiment: query.get("experiment"),
                                       model: query.get("model"), job: query.get("job"), dominated: 1 });
  } catch (error) {
    show(result, problem(error), pointAt(error, query.get("filter")));
    return;
  }
  const points = pointsOf(answer);
  const [x, y, z] = answer.objectives;
  if (points.length === 0) {
    show(result, ...notes(answer), h("p", {}, "No run has all of these objectives."));
    return;
  }
  const plot = scatter({
    points, kinds: kKinds, xTitle: x.name, yTitle: y.name, xLog: isWide(points), signal,
    onPick: (point, isPin) => { if (isPin) togglePin(point.id, point.name); else location.hash = `#/runs/${point.id}`; },
  });
  const rows = answer.runs.filter((run) => !run.dominated);
  show(result, ...notes(answer), plot,
       h("p", { class: "hint" }, `Click a point to pin its run. ${z ? `Large points: good ${z.name}. ` : ""}The knee is nearest to the best of every objective.`),
       table([
         { title: "Pin", cell: (run) => pinBox(run.id, runName(run)) },
         { title: "Run", cell: (run) => h("a", { href: `#/runs/${run.id}` }, String(run.id)) },
         { title: "Model", cell: (run) => run.model }, { title: "Chain", cell: (run) => run.chain },
         ...answer.objectives.map(({ name }) => ({ title: name, number: true, cell: (run) => metric(name, valueOf(answer, run, name)) })),
         { title: "", cell: (run) => (run.knee ? "knee" : "") },
       ], rows));
}
