// Plots with Chart.js, in the page's colours. Where the library was not embedded, the tables beside the plots remain.

import { h } from "./dom.js";

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function axis(title, extra = {}) {
  return {
    title: { display: true, text: title, color: color("--text") },
    ticks: { color: color("--quiet") },
    grid: { color: color("--line") },
    ...extra,
  };
}

function missing() {
  return h("p", { class: "hint" }, "This build has no plotting library: run scripts/fetch_web, then build again.");
}

// Draws now and again when the colour scheme changes, until `signal` aborts.
function draw(canvas, signal, makeConfig) {
  let chart = null;
  const again = () => {
    chart?.destroy();
    chart = new globalThis.Chart(canvas, makeConfig());
  };
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", again, { signal });
  signal.addEventListener("abort", () => chart?.destroy());
  requestAnimationFrame(() => { if (!signal.aborted) again(); });  // the canvas must have a size
  return () => chart;
}

// points: [{x, y, r, kind, label, shape}]; kinds: name -> {title, color, line, shape}. onPick(point, isPin) is called on click, Enter and p.
export function scatter({ points, kinds, xTitle, yTitle, xLog, signal, onPick }) {
  if (!globalThis.Chart) return missing();
  const canvas = h("canvas", { tabindex: 0, role: "img", "aria-label": `${yTitle} against ${xTitle}; arrow keys go from point to point` });
  const groups = Object.entries(kinds).map(([kind, look]) => ({ kind, look, points: points.filter((p) => p.kind === kind) }));
  const chartOf = draw(canvas, signal, () => ({
    type: "scatter",
    data: {
      datasets: groups.map(({ look, points }) => ({
        label: look.title, data: points, showLine: look.line ?? false, tension: 0,
        pointRadius: points.map((p) => p.r), pointHoverRadius: points.map((p) => p.r + 3),
        backgroundColor: color(look.color), borderColor: color(look.color),
        pointStyle: points.map((p) => p.shape ?? look.shape ?? "circle"),
      })),
    },
    options: {
      animation: false, maintainAspectRatio: false,
      onClick: (event, found) => { if (found.length > 0) onPick(groups[found[0].datasetIndex].points[found[0].index], true); },
      plugins: {
        legend: { labels: { color: color("--text"), usePointStyle: true } },
        tooltip: { callbacks: { label: (item) => item.raw.label } },
      },
      scales: { x: axis(xTitle, { type: xLog ? "logarithmic" : "linear" }), y: axis(yTitle) },
    },
  }));
  walkWithKeys(canvas, groups, chartOf, onPick);
  return h("div", { class: "plot" }, canvas);
}

function walkWithKeys(canvas, groups, chartOf, onPick) {
  const order = groups.flatMap((group, datasetIndex) => group.points.map((point, index) => ({ point, datasetIndex, index })));
  order.sort((a, b) => a.point.x - b.point.x);
  let here = -1;
  canvas.addEventListener("keydown", (event) => {
    const chart = chartOf();
    if (!chart || order.length === 0) return;
    if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
      here = (here + (event.key === "ArrowRight" ? 1 : order.length - (here < 0 ? 0 : 1))) % order.length;
      const { datasetIndex, index } = order[here];
      const { x, y } = chart.getDatasetMeta(datasetIndex).data[index];
      chart.setActiveElements([{ datasetIndex, index }]);
      chart.tooltip.setActiveElements([{ datasetIndex, index }], { x, y });
      chart.update();
    } else if (here >= 0 && (event.key === "Enter" || event.key === "p")) {
      onPick(order[here].point, event.key === "p");
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  });
}

// One horizontal bar a label. values: numbers or null.
export function bars({ labels, values, title, color: name, signal }) {
  if (!globalThis.Chart) return missing();
  const canvas = h("canvas", { role: "img", "aria-label": `${title} by layer` });
  draw(canvas, signal, () => ({
    type: "bar",
    data: { labels, datasets: [{ label: title, data: values, backgroundColor: color(name), barPercentage: 0.9, categoryPercentage: 0.9 }] },
    options: {
      indexAxis: "y", animation: false, maintainAspectRatio: false,
      plugins: { legend: { display: false }, title: { display: true, text: title, color: color("--text") } },
      scales: { x: axis("", { title: { display: false } }), y: axis("", { title: { display: false }, ticks: { color: color("--quiet"), autoSkip: labels.length > 60 } }) },
    },
  }));
  const box = h("div", { class: "bars" }, canvas);
  box.style.height = `${Math.min(60 + 18 * labels.length, 1400)}px`;
  return box;
}
