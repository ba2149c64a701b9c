// Asks for the document once a second, and has it drawn. Which cache is chosen stands in the address, after the #.

import { h, put } from "./dom.js";
import { address, overview, PARTS } from "./parts.js";

const at = (id) => document.getElementById(id);
const EVERY = 1000;

let paused = false;
let shown = null; // the address of the cache whose parts are there
let last = null; // the document that was drawn last
let asking = 0; // number of the request that counts: an answer to an earlier one comes too late
let timer;

function wanted() {
  const [namespace, cache] = location.hash.slice(1).split("/").map(decode);
  return namespace && cache ? { namespace, cache } : null;
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}

async function look() {
  clearTimeout(timer);
  const mine = ++asking;
  try {
    let { state, chosen } = await ask(wanted());
    // Nothing was chosen, or it has gone: take the first.
    if (!chosen && state.caches.length && !wanted()) ({ state, chosen } = await ask(state.caches[0]));
    if (mine !== asking) return;
    draw(state, chosen);
    say(paused ? "" : "live", paused ? "paused" : `live, on ${state.host}`);
  } catch (error) {
    if (mine !== asking) return;
    say("lost", `no connection to coopshm-admin serve (${error.message}); what is shown is old`);
  }
  if (!paused) timer = setTimeout(look, EVERY);
}

async function ask(cache) {
  const query = cache ? `?${new URLSearchParams({ namespace: cache.namespace, cache: cache.cache })}` : "";
  const answer = await fetch(`api/status.json${query}`, { signal: AbortSignal.timeout(10000) });
  if (!answer.ok) throw new Error((await answer.text()).trim());
  const state = await answer.json();
  const chosen = cache && state.caches.find((one) => one.namespace === cache.namespace && one.cache === cache.cache);
  return { state, chosen };
}

function say(kind, text) {
  const state = at("state");
  state.className = kind;
  if (state.textContent !== text) state.textContent = text; // else it would be read out again
}

function draw(state, chosen) {
  last = [state, chosen];
  at("where").textContent = state.namespace === null ? "all namespaces" : state.namespace;
  document.title = `${chosen ? `${chosen.cache} – ` : ""}coopshm`;
  put(at("caches"), overview(state.caches, chosen, state.namespace));
  const detail = at("detail");
  if (!chosen || !state.detail) {
    shown = null;
    put(detail, chosen ? h("p", { class: "bad" }, chosen.error) : wanted() ? h("p", {}, "There is no such cache now.") : null);
    return;
  }
  if (shown !== address(chosen)) {
    shown = address(chosen);
    detail.replaceChildren(h("h2", { id: "title" }), h("div", { class: "cards" },
      PARTS.map(([id, kind]) => h("section", { id, class: kind }))));
  }
  put(at("title"), `${chosen.cache} `, h("small", {}, `version ${chosen.version}, generation ${chosen.generation}`));
  for (const [id, , drawn] of PARTS) {
    const place = at(id);
    const style = getComputedStyle(place);
    const width = Math.max(220, place.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight));
    const parts = drawn(chosen, state.detail, Math.floor(width));
    place.hidden = parts === null;
    put(place, parts);
  }
}

at("pause").addEventListener("click", () => {
  paused = !paused;
  at("pause").setAttribute("aria-pressed", String(paused));
  if (paused) {
    clearTimeout(timer);
    asking++;
    say("", "paused");
  } else look();
});
addEventListener("hashchange", look);
addEventListener("resize", () => last && draw(...last));
document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(timer);
  else if (!paused) look();
});
look();
