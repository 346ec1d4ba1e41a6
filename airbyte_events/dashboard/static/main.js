// The dashboard: which page is shown, and who may see it.

import * as api from "./api.js";
import { h } from "./dom.js";
import { Live } from "./live.js";
import { connection, connections } from "./views/connections.js";
import { forwarding, inbox } from "./views/inbox.js";
import { job } from "./views/job.js";
import { jobs } from "./views/jobs.js";
import { overview } from "./views/overview.js";
import { system } from "./views/system.js";

const PAGES = [
  ["", "Overview", overview],
  ["jobs", "Jobs", jobs],
  ["connections", "Connections", connections],
  ["inbox", "Inbox", inbox],
  ["forwarding", "Forwarding", forwarding],
  ["system", "System", system],
];

const [main, nav, state, leave] = ["main", "nav", "live", "leave"].map((id) => document.getElementById(id));
// Where the listener is mounted, with a slash at its end.
const root = new URL(document.baseURI).pathname;
const live = new Live();
let view = null;
let timer = null;

function route(url) {
  const path = url.pathname.startsWith(root) ? url.pathname.slice(root.length) : url.pathname.slice(1);
  const [first = "", instance, id] = path.split("/").map(decodeURIComponent);
  const about = { live, go, params: url.searchParams, instance, id };
  if (first === "jobs" && id) return job(about);
  if (first === "connections" && id) return connection(about);
  const page = PAGES.find(([name]) => name === first);
  return page ? page[2](about) : { title: "No such page", element: h("h1", {}, "There is no such page."), update: () => {} };
}

function show({ focus = true } = {}) {
  const url = new URL(location.href);
  view = route(url);
  main.replaceChildren(view.element);
  view.update();
  document.title = `${view.title} · Airbyte Events`;
  const path = url.pathname.slice(root.length).split("/")[0];
  for (const link of nav.children) {
    if (link.dataset.page === path) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  clearInterval(timer);
  if (view.refresh) timer = setInterval(() => document.hidden || (view.reread ?? view.update)(), view.refresh);
  if (focus) {
    main.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
}

/** Go to a page; with `stay` only the address changes. */
function go(path, { replace = false, stay = false } = {}) {
  const url = new URL(path, document.baseURI);
  history[replace ? "replaceState" : "pushState"](null, "", url);
  if (!stay) show();
}

function follow(event) {
  const link = event.target.closest?.("a[href]");
  if (!link || !view || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const url = new URL(link.href);
  if (url.origin !== location.origin || !url.pathname.startsWith(root) || link.getAttribute("href").startsWith("#")) return;
  event.preventDefault();
  go(url);
}

async function enter() {
  nav.hidden = leave.hidden = false;
  nav.replaceChildren(...PAGES.map(([name, title]) => h("a", { href: name || "./", "data-page": name }, title)));
  live.watch(() => {
    state.dataset.state = live.state;
    if (state.textContent !== live.state) state.textContent = live.state;
    view.update();
  });
  show({ focus: false });
  try {
    await live.begin();
  } catch (error) {
    if (error.status === 401) location.reload();
    else main.prepend(h("p", { class: "alarm", role: "alert" }, error.message));
  }
}

function ask() {
  // Password managers want a name to keep the token by.
  const name = h("input", { name: "username", value: "airbyte-events", autocomplete: "username", hidden: true, readonly: true });
  const token = h("input", { type: "password", id: "token", name: "token", autocomplete: "current-password", required: true });
  const alarm = h("p", { class: "alarm", role: "alert", hidden: true });
  async function submit(event) {
    event.preventDefault();
    try {
      await api.signIn(token.value.trim());
      await enter();
    } catch (error) {
      alarm.textContent = error.status === 401 ? "That is none of the listener’s API tokens." : error.message;
      alarm.hidden = false;
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
      h("p", { class: "faint" }, "One of AIRBYTE_EVENTS_API_TOKENS, or the one that the listener showed when it was started first."),
      alarm,
      h("button", {}, "Log in"),
    ),
  );
  token.focus();
}

addEventListener("popstate", () => view && show());
document.addEventListener("click", follow);
leave.addEventListener("click", async () => {
  await api.signOut().catch(() => {});
  location.reload();
});

const { signed_in: known } = await api.session().catch(() => ({ signed_in: false }));
if (known) await enter();
else ask();
