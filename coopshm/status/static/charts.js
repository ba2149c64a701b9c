// Drawn by hand, as SVG: lines over time, and the map of the arena. Each has a text that says what it shows.

import { bytes, count, h, plural, s } from "./dom.js";

const HEIGHT = 150;
const LEFT = 64;
const BOTTOM = 18;
const TOP = 12;

/**
 * Lines over time. `series` has {name, values, kind}; the kind has a colour and a dash of its own in the style sheet.
 * `marks` are moments with a title, drawn as vertical lines. `format` writes a value. `top` is the least that the axis ends at.
 */
export function lines(title, at, series, { marks = [], format, width, top = 0 }) {
  const end = at.length ? at[at.length - 1] : 0;
  const begin = at.length ? at[0] : 0;
  const span = Math.max(end - begin, 1);
  const highest = Math.max(0, ...series.flatMap((line) => line.values));
  const most = highest > top || !top ? nice(highest) : top;
  const x = (moment) => LEFT + ((moment - begin) / span) * (width - LEFT - 8);
  const y = (value) => TOP + (1 - value / most) * (HEIGHT - TOP - BOTTOM);
  const grid = [0, 0.5, 1].map((share) => s("g", {},
    s("line", { class: "grid", x1: LEFT, x2: width - 8, y1: y(most * share), y2: y(most * share) }),
    s("text", { class: "tick", x: LEFT - 5, y: y(most * share) + 4, "text-anchor": "end" }, format(most * share))));
  const ago = (seconds) => (seconds >= 90 ? `−${Math.round(seconds / 60)} min` : `−${Math.round(seconds)} s`);
  const ticks = [
    s("text", { class: "tick", x: LEFT, y: HEIGHT - 3 }, ago(span)),
    s("text", { class: "tick", x: width - 8, y: HEIGHT - 3, "text-anchor": "end" }, "now"),
  ];
  const drawn = series.map((line) => s("polyline", {
    class: `line ${line.kind}`,
    points: line.values.map((value, i) => `${x(at[i]).toFixed(1)},${y(value).toFixed(1)}`).join(" "),
  }));
  const flags = marks.filter((mark) => mark.at >= begin && mark.at <= end).map((mark) => s("g", { class: "mark" },
    s("title", {}, mark.title),
    s("line", { x1: x(mark.at), x2: x(mark.at), y1: TOP, y2: HEIGHT - BOTTOM }),
    s("path", { d: `M${x(mark.at) - 5},${TOP - 9} h10 l-5,9 z` })));
  const last = series.map((line) => `${line.name} ${format(line.values[line.values.length - 1] ?? 0)}`).join(", ");
  const label = `${title}, now: ${last}${flags.length ? `; ${plural(flags.length, "reset")}` : ""}`;
  return h("figure", {},
    h("figcaption", {}, title),
    s("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "img", "aria-label": label },
      grid, ticks, flags, drawn),
    h("ul", { class: "legend" },
      series.map((line) => h("li", {}, swatch(line.kind), `${line.name} `,
        h("b", {}, format(line.values[line.values.length - 1] ?? 0)))),
      marks.length ? h("li", {}, flag(), "reset") : null));
}

function swatch(kind) {
  return s("svg", { class: "swatch", width: 26, height: 10, "aria-hidden": "true" },
    s("line", { class: `line ${kind}`, x1: 1, x2: 25, y1: 5, y2: 5 }));
}

function flag() {
  return s("svg", { class: "swatch mark", width: 12, height: 10, "aria-hidden": "true" }, s("path", { d: "M1,1 h10 l-5,8 z" }));
}

/** The next of 1, 2, 5, 10 ... */
function nice(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((digit) => digit * power).find((step) => step >= value * 0.999);
}

const STATES = {
  used: "used",
  reserved: "memory taken, to be used again",
  free: "no memory taken yet",
};

/** What a chunk is, in words. */
function state(chunk) {
  return chunk.entered ? "used" : chunk.backed ? "reserved" : "free";
}

/** The arena, a cell for each chunk, in the order in which they lie there. */
export function arena(chunks) {
  const tally = { used: 0, reserved: 0, free: 0, pinned: 0 };
  const cells = chunks.map((chunk, number) => {
    const kind = state(chunk);
    const pinned = chunk.view_pins + chunk.write_pins > 0;
    tally[kind] += 1;
    tally.pinned += pinned;
    const share = chunk.entered ? chunk.allocated_bytes / Math.max(1, chunk.bytes) : 0;
    const pins = [];
    if (chunk.view_pins) pins.push(`${chunk.view_pins} views`);
    if (chunk.write_pins) pins.push(`${chunk.write_pins} writers`);
    const words = `chunk ${number}: ${STATES[kind]}` +
      (chunk.entered ? `, ${bytes(chunk.allocated_bytes)} of ${bytes(chunk.bytes)}` : "") +
      (pins.length ? `; pinned by ${pins.join(" and ")}` : "");
    return h("span", { class: `cell ${kind}${pinned ? " pinned" : ""}`, title: words, "--share": share.toFixed(3) });
  });
  const label = `${count(chunks.length)} chunks of ${bytes(chunks[0].bytes)}: ${tally.used} used, ${tally.reserved} reserved, ` +
    `${tally.free} free; ${tally.pinned} pinned`;
  return [
    h("p", { class: "note" }, label),
    h("div", { class: "arena", role: "img", "aria-label": `Map of the arena. ${label}` }, cells),
    h("ul", { class: "legend" },
      h("li", {}, h("span", { class: "cell used", "--share": 0.6 }), "used, to this height"),
      h("li", {}, h("span", { class: "cell reserved" }), "memory taken, used again from the next entry on"),
      h("li", {}, h("span", { class: "cell free" }), "no memory taken yet"),
      h("li", {}, h("span", { class: "cell used pinned", "--share": 1 }), "pinned: a view or writer holds it")),
  ];
}
