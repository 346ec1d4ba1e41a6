// The dashboard: which page is shown, and who may see it.

import * as api from "./api.js";
import { h, patch, tick, write } from "./dom.js";
import { ago, timeOf } from "./words.js";
import { Live } from "./live.js";
import { connection, connections } from "./views/connections.js";
import { forwarding } from "./views/forwarding.js";
import { inbox } from "./views/inbox.js";
import { job } from "./views/job.js";
import { jobs } from "./views/jobs.js";
import { missing } from "./views/missing.js";
import { overview } from "./views/overview.js";
import { system } from "./views/system.js";

const FRESHNESS = 10_000; // milliseconds between two readings of how fresh the states are

/**
 * @typedef {object} View
 * @property {string} title
 * @property {Element} element
 * @property {() => void} update
 * @property {number} [refresh] milliseconds
 * @property {() => void} [reread]
 * @property {Promise<void>} [ready]
 */

/** @type {[string, string, (about: any) => View][]} */
const PAGES = [
  ["", "Overview", overview],
  ["jobs", "Jobs", jobs],
  ["connections", "Connections", connections],
  ["inbox", "Inbox", inbox],
  ["forwarding", "Forwarding", forwarding],
  ["system", "System", system],
];

const [main, nav, state, fresh, leave, trouble] = ["main", "nav", "live", "fresh", "leave", "trouble"].map(
  (id) => /** @type {HTMLElement} */ (document.getElementById(id)),
);
// Where the listener is mounted, with a slash at its end.
const root = new URL(document.baseURI).pathname;
const live = new Live();
/** Whether the session may change jobs. The listener decides anew at each request; this is about what is shown. */
const who = { operator: false };
const tabs = new BroadcastChannel(`airbyte-events ${root}`);
/** @type {View | null} */
let view = null;
/** @type {number | undefined} */
let timer;

/** @returns {View} */
function route(url, place) {
  const path = url.pathname.startsWith(root) ? url.pathname.slice(root.length) : url.pathname.slice(1);
  const parts = path.split("/").map(decoded);
  const [first, instance, id] = parts;
  const about = { live, who, go, keep, place, path: url.pathname, params: url.searchParams, instance, id };
  if (parts.length === 3 && id) {
    if (first === "jobs") return job(about);
    if (first === "connections") return connection(about);
  }
  const [, , page] = (parts.length === 1 && PAGES.find(([name]) => name === first)) || ["", "", missing];
  return page(about);
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Draw what the address says. `place` is where somebody was on it before, as `keep` noted. */
async function show(place = /** @type {any} */ (null)) {
  const url = new URL(location.href);
  const shown = route(url, place ?? {});
  view = shown;
  main.replaceChildren(shown.element);
  shown.update();
  document.title = `${shown.title} · Airbyte Events`;
  const path = url.pathname.slice(root.length).split("/")[0];
  for (const link of /** @type {Iterable<HTMLElement>} */ (/** @type {unknown} */ (nav.children))) {
    if (link.dataset.page === path) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  clearInterval(timer);
  if (shown.refresh) timer = setInterval(() => document.hidden || (shown.reread ?? shown.update)(), shown.refresh);
  scrollTo(0, 0);
  await Promise.all([shown.ready, place?.scroll && read]);
  if (place?.scroll && shown === view && scrollY === 0) scrollTo(0, place.scroll);
}

/** Note where somebody is on this page, for when they come back to it. */
const keep = (place) => history.replaceState({ ...history.state, ...place }, "");

/** Go to a page; with `stay` only the address changes. */
function go(path, { stay = false } = {}) {
  const url = new URL(path, document.baseURI);
  if (stay) {
    history.replaceState(history.state, "", url);
    return;
  }
  keep({ scroll: scrollY });
  history.pushState(null, "", url);
  show();
  main.focus({ preventScroll: true });
}

function follow(event) {
  const link = event.target.closest?.("a[href]");
  if (!link || !view || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const url = new URL(link.href);
  if (url.origin !== location.origin || !url.pathname.startsWith(root)) return;
  event.preventDefault();
  if (link.getAttribute("href").startsWith("#")) main.focus();
  else go(url);
}

/** @type {Promise<void> | undefined} */
let read; // done once the states were read

function enter() {
  nav.hidden = leave.hidden = false;
  nav.replaceChildren(...PAGES.map(([name, title]) => h("a", { href: name || "./", "data-page": name }, title)));
  read = live.begin();
  show(history.state);
  learn();
}

const PATIENCE = 3_000; // milliseconds without a stream before the numbers count as old: streams are renewed now and then
/** @type {number | undefined} */
let doubt;

/** Say above the page what is wrong, and dim the numbers that are not live. */
function warn() {
  const down = live.state === "reconnecting" && Date.now() - live.heardAt >= PATIENCE;
  clearTimeout(doubt);
  if (live.state === "reconnecting" && !down) doubt = setTimeout(warn, PATIENCE);
  const why = live.trouble || (down ? "The listener does not respond. Trying again …" : "");
  trouble.hidden = !view || !why;
  write(trouble, down ? `${why} All numbers are as of ${timeOf(live.heardAt)}.` : why);
  main.classList.toggle("stale", down);
}

async function learn() {
  const { operator } = await api.session().catch(() => ({ operator: false }));
  who.operator = operator === true;
  view?.update();
}

live.watch(() => {
  if (!view) return;
  state.dataset.state = live.state;
  write(state, live.state);
  const polls = Object.entries(live.asOf);
  patch(fresh, polls.length ? [polls] : [], () => "polled", JSON.stringify, freshness);
  warn();
  view.update();
});

/** How fresh what is shown is: by the Airbyte that was polled the longest ago. */
function freshness(/** @type {[string, string | null][]} */ polls) {
  const [name, oldest] = polls.reduce((a, b) => ((a[1] ?? "") <= (b[1] ?? "") ? a : b));
  const airbyte = polls.length > 1 ? `, ${name}` : "";
  return h("span", {}, ...(oldest ? ["polled ", ago(oldest)] : ["not polled yet"]), airbyte);
}

/** Show nothing but the way in. */
function out(why = "") {
  live.end();
  view = null;
  clearInterval(timer);
  nav.hidden = leave.hidden = trouble.hidden = true;
  main.classList.remove("stale");
  who.operator = false;
  state.textContent = fresh.textContent = "";
  document.title = "Airbyte Events";
  // Password managers want a name to keep the token by.
  const name = h("input", { name: "username", value: "airbyte-events", autocomplete: "username", hidden: true, readonly: true });
  const token = h("input", { type: "password", id: "token", name: "token", autocomplete: "current-password", required: true });
  const alarm = h("p", { class: "alarm", role: "alert", hidden: !why }, why);
  const button = h("button", {}, "Log in");
  async function submit(event) {
    event.preventDefault();
    button.disabled = true;
    try {
      await api.signIn({ token: token.value.trim() });
      tabs.postMessage("in");
      enter();
    } catch (error) {
      alarm.textContent = error.status === 401 ? "This is not one of the listener’s API tokens." : error.status === 429 ? "Too many wrong tokens from your address. Wait a minute, then try again." : error.message;
      alarm.hidden = false;
      button.disabled = false;
      token.select();
    }
  }
  main.replaceChildren(
    h(
      "form",
      { class: "login", onsubmit: submit },
      h("h1", {}, "Log in"),
      name,
      h("label", { for: "token" }, "API token", token),
      h("p", { class: "faint" }, "One of AIRBYTE_EVENTS_API_TOKENS, or the token that the listener printed at its first start."),
      alarm,
      button,
    ),
  );
  token.focus();
}

history.scrollRestoration = "manual";
/** @type {number | undefined} */
let scrolled;
addEventListener("scroll", () => {
  clearTimeout(scrolled);
  scrolled = setTimeout(() => view && keep({ scroll: scrollY }), 150);
});
addEventListener("popstate", () => {
  clearTimeout(scrolled);
  if (view) show(history.state);
});
document.addEventListener("click", follow);
setInterval(() => document.hidden || tick(), 1000);
setInterval(() => document.hidden || (view && live.refresh()), FRESHNESS);
api.door.addEventListener("out", () => view && out("The session has ended. Log in again to continue."));
// Who leaves in one tab leaves in all.
tabs.addEventListener("message", ({ data }) => {
  if (data === "out" && view) out("You have logged out in another tab.");
  if (data === "in" && !view) enter();
});
leave.addEventListener("click", async () => {
  try {
    await api.signOut();
  } catch (error) {
    trouble.hidden = false;
    trouble.textContent = `Not logged out: ${error.message}`;
    return;
  }
  tabs.postMessage("out");
  out();
});

// The code of a log-in link is behind the #, which browsers send to no server.
const code = new URLSearchParams(location.hash.slice(1)).get("log-in");
let why = "";
if (code !== null) {
  history.replaceState(history.state, "", location.pathname + location.search);
  await api.signIn({ code }).catch((error) => {
    why = error.status === 401 ? "This log-in link was used already or is too old. Log in with an API token." : error.message;
  });
}
const { signed_in: known } = await api.session().catch(() => ({ signed_in: false }));
if (known) enter();
else out(why);
