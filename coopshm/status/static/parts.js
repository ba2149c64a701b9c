// What is shown of the caches: the list of all, and each part of the one that was chosen.

import { arena, lines } from "./charts.js";
import { bar, bytes, count, duration, h, moment, percent, plural, rate, table } from "./dom.js";

export const address = (cache) => `#${encodeURIComponent(cache.namespace)}/${encodeURIComponent(cache.cache)}`;

/** The list of all caches. */
export function overview(caches, chosen, namespace) {
  const cluster = caches.some((cache) => cache.cluster && cache.cluster.sidecar !== null); // else there is no use for its column
  const name = (cache) => h("a", { href: address(cache), "aria-current": cache === chosen ? "true" : null },
    namespace === null ? `${cache.namespace} / ${cache.cache}` : cache.cache);
  const columns = [
    { title: "Cache" }, { title: "Fill" }, { title: "Hit ratio", number: true }, { title: "Hits", number: true },
    { title: "Misses", number: true }, { title: "Computations", number: true }, { title: "In flight", number: true },
    { title: "Waiting", number: true }, { title: "Entries", number: true }, { title: "Processes", number: true }, ...(cluster ? [{ title: "Nodes", number: true }] : []), { title: "Version" },
  ];
  const rows = caches.map((cache) => {
    if (cache.error !== null) return { cells: [name(cache), h("span", { class: "bad" }, `cannot be read: ${cache.error}`)] };
    const now = cache.recent;
    const hits = now ? now.hits + now.hot_hits : 0;
    return {
      chosen: cache === chosen,
      cells: [
        name(cache),
        h("span", {}, bar(cache.bytes_used / cache.memory_limit, cache.full ? "full" : ""),
          percent(cache.bytes_used, cache.memory_limit), cache.full ? h("b", { class: "bad" }, " full") : null),
        now ? percent(hits, hits + now.misses) : "–",
        now ? rate(hits) : "–", now ? rate(now.misses) : "–", now ? rate(now.computations) : "–",
        count(cache.flights), count(cache.waiters), count(cache.entries), count(cache.processes),
        ...(cluster ? [live(cache.cluster)] : []),
        h("span", { class: "code" }, short(cache.version, 32)),
      ],
    };
  });
  return table("All caches; rates are means of the last ten seconds", columns, rows, "There is no cache yet.");
}

/** How many of the other nodes have all of the cache. */
function live({ sidecar, nodes }) {
  if (sidecar === null) return h("span", { class: "bad" }, "no sidecar");
  const good = nodes.filter((node) => node.state === "live").length;
  return good === nodes.length ? `${good} of ${nodes.length}` : h("span", { class: "bad" }, `${good} of ${nodes.length}`);
}

const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

/** The parts of the chosen cache: an id, its class, and how it is drawn from the document (null: not
 * at all). `width` is that of an element. */
export const PARTS = [
  ["tiles", "whole bare", tiles],
  ["lookups", "card wide", (cache, more, width) => lines("Look-ups per second", more.series.at, [
    { name: "hits in the process", values: more.series.hot_hits, kind: "teal" },
    { name: "hits in shared memory", values: more.series.hits, kind: "blue" },
    { name: "misses", values: more.series.misses, kind: "orange" },
  ], { marks: marks(more), format: count3, width })],
  ["work", "card wide", (cache, more, width) => lines("Computing, per second", more.series.at, [
    { name: "computations", values: more.series.computations, kind: "blue" },
    { name: "waits for one", values: more.series.waits, kind: "teal" },
    { name: "failures", values: more.series.failures, kind: "orange" },
    { name: "bypasses", values: more.series.bypasses, kind: "purple" },
  ], { marks: marks(more), format: count3, width })],
  ["arena", "card wide", (cache, more) => titled("Arena", ...arena(more.chunks))],
  ["fill", "card wide", (cache, more, width) => lines("Bytes used", more.series.at, [
    { name: `of ${bytes(cache.memory_limit)}`, values: more.series.bytes_used, kind: "blue" },
  ], { marks: marks(more), format: bytes, width, top: cache.memory_limit })],
  ["cluster", "card whole", cluster],
  ["flights", "card wide", flights],
  ["slowest", "card wide", slowest],
  ["durations", "card", (cache, more) => titled("How long computations took", ...histogram(more.compute, "No computation has ended yet."))],
  ["waits", "card", (cache, more) => titled("How long callers waited", ...histogram(more.wait, "Nobody has waited yet."))],
  ["bypasses", "card", bypasses],
  ["resets", "card wide", resets],
  ["processes", "card wide", processes],
];

const count3 = (n) => (n >= 100 || n === 0 ? count(n) : String(Number(n.toPrecision(2))));

function titled(title, ...children) {
  return [h("h3", {}, title), ...children];
}

function marks(more) {
  return more.resets.map((reset) => ({ at: reset.at, title: `reset to ${reset.version} at ${moment(reset.at)}` }));
}

function tiles(cache, more) {
  const all = cache.hits + cache.misses;
  const tile = (title, value, ...notes) => h("div", {}, h("dt", {}, title), h("dd", {}, value, h("small", {}, ...notes)));
  const now = cache.recent;
  const hits = now ? now.hits + now.hot_hits : 0;
  const took = more.compute;
  return h("dl", { class: "tiles" },
    tile("Hit ratio", now ? percent(hits, hits + now.misses) : "–", `${percent(cache.hits, all)} since it was created`),
    tile("Hits", now ? rate(hits) : "–", `${now ? percent(now.hot_hits, hits) : "–"} in the process itself`),
    tile("Computations", now ? rate(now.computations) : "–",
      took.count ? `half take under ${duration(took.p50)}, 99 % under ${duration(took.p99)}` : "none yet"),
    tile("In flight", count(cache.flights), `${count(cache.waiters)} waiting for them`),
    tile("Fill", percent(cache.bytes_used, cache.memory_limit),
      `${bytes(cache.bytes_used)} of ${bytes(cache.memory_limit)}${cache.full ? "; full" : ""}`),
    tile("Entries", count(cache.entries), `of at most ${count(cache.max_items)}`),
    tile("Bypasses", now ? rate(now.bypasses) : "–", `${count(sum(Object.values(more.bypasses)))} since it was created`),
    tile("Takeovers", count(more.takeovers), "of computations whose process died"));
}

const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);

function flights(cache, more) {
  const columns = [
    { title: "Key", code: true }, { title: "Process", number: true }, { title: "Age", number: true },
    { title: "Waiting", number: true }, { title: "Owner" },
  ];
  const rows = more.flights.map((flight) => ({
    cells: [flight.key, String(flight.pid), duration(flight.age_seconds), count(flight.waiters),
      flight.attended ? (flight.takeovers ? `alive, taken over ${plural(flight.takeovers, "time")}` : "alive") : "dead, to be taken over"],
  }));
  return titled(`In flight (${count(more.flights.length)})`,
    h("div", { class: "scroll" }, table("Computations in flight, the oldest first", columns, rows, "Nothing is being computed.")));
}

function slowest(cache, more) {
  const columns = [{ title: "Key", code: true }, { title: "Took", number: true }, { title: "Ended", number: true }, { title: "Process", number: true }];
  const rows = more.slowest.map((slow) => ({ cells: [slow.key, duration(slow.seconds), moment(slow.at), String(slow.pid)] }));
  return titled("Slowest keys", h("div", { class: "scroll" },
    table("The computations that took longest, in this generation", columns, rows, "No computation has ended yet.")));
}

/** Bars, one for each length of time. Those without any, before the first and after the last, are left out. */
function histogram(times, empty) {
  if (!times.count) return [h("p", { class: "none" }, empty)];
  const numbers = times.buckets.map((bucket, i) => bucket.count - (i ? times.buckets[i - 1].count : 0));
  const first = numbers.findIndex((n) => n > 0);
  const last = numbers.length - 1 - [...numbers].reverse().findIndex((n) => n > 0);
  const most = Math.max(...numbers);
  const rows = [];
  for (let i = first; i <= last; i++) {
    const le = times.buckets[i].le;
    rows.push(h("dt", {}, le === "+Inf" ? `> ${duration(times.buckets[i - 1].le)}` : `≤ ${duration(le)}`),
      h("dd", {}, bar(numbers[i] / most)), h("dd", {}, count(numbers[i])));
  }
  return [
    h("p", { class: "note" }, `${count(times.count)} in all, together ${duration(times.sum)}, the longest ${duration(times.max)}`),
    h("dl", { class: "bars" }, rows),
  ];
}

/** Why calls were answered without the cache. */
const CAUSES = {
  full: "the arena is full", items: "max_items is reached", too_large: "larger than the arena", no_space: "/dev/shm is full",
  lock: "stopped lock holder", rows: "no room for the process", flights: "too many computations", slots: "no place in the index",
  waiters: "too many waiters", forked: "forked while computing", encode: "cannot be encoded", decode: "cannot be decoded",
  segment: "segment unusable", timeout: "waited too long",
};

function bypasses(cache, more) {
  const causes = Object.entries(more.bypasses).filter(([, n]) => n > 0).sort((a, b) => b[1] - a[1]);
  if (!causes.length) return titled("Bypasses by cause", h("p", { class: "none" }, "Every call was answered by way of the cache."));
  return titled("Bypasses by cause",
    h("p", { class: "note" }, "Calls that were answered without the cache, since it was created."),
    h("dl", { class: "bars" }, causes.map(([cause, n]) => [
      h("dt", { title: cause }, CAUSES[cause] ?? cause), h("dd", {}, bar(n / causes[0][1])), h("dd", {}, count(n)),
    ])));
}

function resets(cache, more) {
  const columns = [
    { title: "When", number: false }, { title: "From", code: true }, { title: "To", code: true },
    { title: "Generation", number: true }, { title: "By process" },
  ];
  const rows = more.resets.map((reset) => ({
    cells: [moment(reset.at) + (reset.resets > 1 ? ` (${reset.resets} since the look before)` : ""),
      reset.former === null ? "–" : short(reset.former, 60), short(reset.version, 60), count(reset.generation),
      `${reset.pid}, uid ${reset.uid}`],
  }));
  return titled("Resets", h("div", { class: "scroll" },
    table("Resets that were seen, the newest first", columns, rows, "None since this page's server was started.")));
}

/** What a node is to the cache, in words. */
const NODE_STATES = {
  live: "live", behind: "behind: has not come to the last reset", failing: "failing: its on_reset callback raises",
  absent: "absent: does not have the cache", away: "away: not connected",
};

function cluster(cache) {
  const { node, sidecar, resets, last_reset_by: by, nodes } = cache.cluster;
  if (node === null && sidecar === null) return null;
  const columns = [
    { title: "Node" }, { title: "State", long: true }, { title: "Our reset" }, { title: "Since" },
  ];
  const rows = nodes.map((other) => ({
    cells: [other.name, h("span", { class: other.state === "live" ? null : "bad" }, NODE_STATES[other.state]),
      other.applied ? "applied" : h("span", { class: "bad" }, "not yet"), moment(other.since)],
  }));
  const made = by === null ? "The cluster has not been reset yet."
    : `Reset ${count(resets)} of the cluster, made by ${by.startsWith("#") ? "a host without a name" : by.split("#")[0]}.`;
  return titled("Cluster",
    h("p", { class: "note" }, sidecar === null ? "No sidecar runs: the cache is this host's alone."
      : `This host is ${node ?? "without a name"}; its sidecar is process ${sidecar}. ${made}`),
    sidecar === null ? null : h("div", { class: "scroll" },
      table("The other nodes of the cluster, as the sidecar knows them", columns, rows, "The sidecar knows of no other node.")));
}

function processes(cache, more) {
  const columns = [
    { title: "Process" }, { title: "Since" }, { title: "Computing", number: true }, { title: "Pins", number: true },
    { title: "Pinned", number: true },
  ];
  const rows = more.processes.map((process) => ({
    cells: [`${process.pid}${process.role === "app" ? "" : ` (${process.role})`}`, moment(process.since), count(process.computing),
      count(process.view_pins + process.write_pins), bytes(process.pinned_bytes)],
  }));
  return titled(`Processes (${count(more.processes.length)})`,
    h("div", { class: "scroll" }, table("Processes that use the cache", columns, rows, "No process uses the cache now.")));
}
