// Runs pinned for comparison: kept for this tab, shown at the foot of every page.

import { h } from "./dom.js";

const kKey = "pared-pins";
const kPinsMax = 16;  // what GET /v1/compare takes

export function pins() {
  return JSON.parse(sessionStorage.getItem(kKey) ?? "[]");
}

export function togglePin(id, name) {
  const before = pins();
  const without = before.filter((pin) => pin.id !== id);
  const isNew = without.length === before.length;
  const after = isNew ? [...before, { id, name }].slice(-kPinsMax) : without;
  sessionStorage.setItem(kKey, JSON.stringify(after));
  drawPins();
  return isNew;
}

export function pinBox(id, name) {
  const box = h("input", { type: "checkbox", "aria-label": `Pin run ${id}`, "data-pin": id,
                           onchange: () => togglePin(id, name) });
  box.checked = pins().some((pin) => pin.id === id);
  return box;
}

export function comparePinned() {
  if (pins().length >= 2) location.hash = `#/compare?runs=${pins().map((pin) => pin.id).join(",")}`;
}

export function drawPins() {
  const place = document.getElementById("pins");
  const all = pins();
  for (const box of document.querySelectorAll("[data-pin]")) {
    box.checked = all.some((pin) => String(pin.id) === box.dataset.pin);
  }
  place.hidden = all.length === 0;
  place.replaceChildren(
    h("span", {}, "Pinned:"),
    ...all.map((pin) => h("button", { title: "Unpin", onclick: () => togglePin(pin.id, pin.name) },
                          `${pin.id} ${pin.name} ×`)),
    h("button", { class: "main", disabled: all.length < 2, onclick: comparePinned }, "Compare"));
}
