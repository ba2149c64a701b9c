// Elements and numbers. Text from outside (keys!) becomes text nodes here, and never markup.

/** Makes an element: attributes, `on*` functions, and children (text or nodes). */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

const SVG = "http://www.w3.org/2000/svg";

/** The same for SVG. */
export function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("--")) element.style.setProperty(name, value);
    else if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

/** Puts new children into an element, unless they look the same: focus and selections stay. */
export function put(element, ...children) {
  const next = h("div", {}, ...children);
  if (next.innerHTML !== element.innerHTML) element.replaceChildren(...next.childNodes);
}

/** A table that becomes a list of cards where there is no room for it; hence the explicit roles. */
export function table(caption, columns, rows, empty) {
  if (!rows.length) return h("p", { class: "none" }, empty);
  return h("table", { role: "table", class: "stack" },
    h("caption", { class: "hidden" }, caption),
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, columns.map((column) =>
      h("th", { role: "columnheader", scope: "col", class: column.number ? "number" : null }, column.title)))),
    h("tbody", { role: "rowgroup" }, rows.map((row) => h("tr", { role: "row", class: row.chosen ? "chosen" : null },
      columns.map((column, at) => h(at ? "td" : "th", {
        role: at ? "cell" : "rowheader", scope: at ? null : "row", "data-title": column.title,
        class: [column.number ? "number" : "", column.code ? "code" : "", column.long ? "long" : ""].join(" ").trim() || null,
      }, row.cells[at]))))));
}

/** The level of something, beside a text that says the same. */
export function bar(share, kind = "") {
  return h("span", { class: `bar ${kind}`.trim(), "aria-hidden": "true", "--share": Math.min(1, Math.max(0, share)) }, h("i"));
}

// ---- numbers

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const few = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

export const count = (n) => (n < 100000 ? whole.format(n) : compact.format(n));

/** A number with its noun. */
export const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;

export const rate = (n) => `${n === 0 ? "0" : n < 10 ? few.format(n) : count(n)}/s`;

export function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  while (n >= 1023.95 && units.length > 1) {
    n /= 1024;
    units.shift();
  }
  return `${units[0] === "B" ? whole.format(n) : n.toFixed(1)} ${units[0]}`;
}

export function percent(part, total) {
  if (!total) return "–";
  const share = (100 * part) / total;
  return share > 0 && share < 0.1 ? "<0.1 %" : share > 99.9 && share < 100 ? ">99.9 %" : `${share.toFixed(1)} %`;
}

export function duration(seconds) {
  if (seconds === 0) return "0 s";
  if (seconds < 1e-3) return `${few.format(seconds * 1e6)} µs`;
  if (seconds < 1) return `${few.format(seconds * 1e3)} ms`;
  if (seconds < 60) return `${few.format(seconds)} s`;
  const rest = Math.floor(seconds);
  if (rest < 3600) return `${Math.floor(rest / 60)} min ${rest % 60} s`;
  if (rest < 86400) return `${Math.floor(rest / 3600)} h ${Math.floor((rest % 3600) / 60)} min`;
  return `${Math.floor(rest / 86400)} d ${Math.floor((rest % 86400) / 3600)} h`;
}

/** A moment, as the time of day here; the date as well if it is another day. */
export function moment(seconds) {
  const then = new Date(seconds * 1000);
  const time = then.toLocaleTimeString("en-GB");
  return then.toDateString() === new Date().toDateString() ? time : `${then.toLocaleDateString("en-CA")} ${time}`;
}
