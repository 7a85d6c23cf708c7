// The page's frame: which view the address after '#' names, keys, and what the daemon says of itself.

import { get } from "./api.js";
import { h, problem, show } from "./dom.js";
import { showJob, showJobs } from "./jobs.js";
import { showSubmit } from "./submit.js";
import { showHistory } from "./history.js";
import { showPareto } from "./pareto.js";
import { showRun } from "./run.js";
import { showCompare } from "./compare.js";
import { showNight, showNights } from "./nights.js";
import { comparePinned, drawPins } from "./pins.js";

// A view fills `view` from the address; `signal` aborts when another view takes its place.
const kViews = [
  [/^\/jobs$/, showJobs],
  [/^\/jobs\/(\d+)$/, showJob],
  [/^\/submit$/, showSubmit],
  [/^\/runs$/, showHistory],
  [/^\/runs\/(\d+)$/, showRun],
  [/^\/pareto$/, showPareto],
  [/^\/compare$/, showCompare],
  [/^\/nights$/, showNights],
  [/^\/nights\/(\d+)$/, showNight],
];

let leave = new AbortController();

async function go() {
  leave.abort();
  leave = new AbortController();
  const { signal } = leave;
  const [path, query] = (location.hash.slice(1) || "/jobs").split("?");
  for (const link of document.querySelectorAll("nav a")) {
    const isHere = path.startsWith(link.getAttribute("href").slice(1));
    if (isHere) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const view = document.createElement("div");
  const main = document.getElementById("view");
  main.replaceChildren(view);
  const found = kViews.map(([pattern, view]) => [pattern.exec(path), view]).find(([match]) => match);
  try {
    if (!found) throw new Error(`There is no page ${path}.`);
    await found[1](view, { id: found[0][1], query: new URLSearchParams(query), signal });
    document.title = `${view.querySelector("h1")?.textContent ?? "pared"} · pared`;
  } catch (error) {
    if (error.name !== "AbortError" && !signal.aborted) show(view, h("h1", {}, "That did not work"), problem(error));
  }
}

function isTyping(target) {
  return target.closest("input, select, textarea, dialog") !== null;
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
  const links = document.querySelectorAll("nav a");
  if (/^[1-9]$/.test(event.key) && links[event.key - 1]) links[event.key - 1].click();
  else if (event.key === "/") document.querySelector("[data-filter]")?.focus();
  else if (event.key === "?") document.getElementById("keys").showModal();
  else if (event.key === "c") comparePinned();
  else return;
  event.preventDefault();
}

async function sayHealth() {
  const place = document.getElementById("daemon");
  try {
    const health = await get("/healthz");
    place.textContent = `${health.version} · ${health.cpu} · ${health.isa}`;
  } catch (error) {
    place.textContent = error.message;
  }
}

addEventListener("hashchange", go);
addEventListener("keydown", onKey);
drawPins();
sayHealth();
go();
