// Small helpers: elements, tables and numbers as text. Text is always set as text, never as HTML.

// h("a", {href: "#/", class: "x", onclick: f}, "text", child, null): null children and attributes are left out.
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

export function show(view, ...children) {
  view.replaceChildren(...children.flat(Infinity).filter((child) => child !== null));
}

// columns: [{title, cell(row) -> text or element, number, wrap}]
export function table(columns, rows, { empty = "Nothing here yet." } = {}) {
  if (rows.length === 0) return h("p", { class: "hint" }, empty);
  const classOf = (column) => (column.number ? "number" : column.wrap ? "wrap" : null);
  const head = columns.map((column) => h("th", { class: classOf(column), scope: "col" }, column.title));
  const body = rows.map((row) =>
    h("tr", {}, columns.map((column) => h("td", { class: classOf(column) }, column.cell(row) ?? ""))));
  return h("div", { class: "scroll", tabindex: 0 },
           h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, body)));
}

export function time(ms) {
  return ms === null || ms === undefined ? "" : new Date(ms).toLocaleString();
}

export function bytes(count) {
  if (count === undefined || count === null) return "";
  const units = ["B", "kB", "MB", "GB"];
  let unit = 0;
  for (; count >= 1000 && unit < units.length - 1; unit++) count /= 1000;
  return `${unit === 0 ? count : count.toPrecision(3)} ${units[unit]}`;
}

export function duration(ms) {
  const s = Math.round(ms / 1000);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
}

// A metric by its name's unit.
export function metric(name, value) {
  if (value === undefined || value === null) return "";
  if (typeof value !== "number") return String(value);
  if (/_bytes$/.test(name)) return bytes(value);
  if (/_ms(_|$)/.test(name)) return `${value.toPrecision(3)} ms`;
  if (/_db$/.test(name)) return `${value.toFixed(1)} dB`;
  if (/_ratio$/.test(name)) return value.toFixed(3);
  if (Number.isInteger(value)) return String(value);
  return Math.abs(value) < 10 ? value.toFixed(4) : value.toPrecision(5);
}

export function chip(text, kind = "") {
  return h("span", { class: `chip ${kind}` }, text);
}

export function problem(error) {
  return h("p", { class: "error", role: "alert" }, error.message);
}
