import * as api from "../api.js";
import { h, section, table } from "../dom.js";
import { when } from "../words.js";

const OUTCOMES = { pending: "odd", confirmed: "good", unconfirmed: "odd", unknown_job: "bad", ignored: "faint", rejected: "bad" };

/** A list that is read page by page: `load(before)` gives `{items, next}`. */
function pages(load, list, filter = () => true) {
  const alarm = h("p", { class: "alarm", hidden: true, role: "alert" });
  let [items, next] = [[], null];
  const more = h("button", { type: "button", hidden: true, onclick: () => read(next) }, "Show more");
  async function read(before = null) {
    try {
      const page = await load(before);
      items = before === null ? page.items : [...items, ...page.items];
      next = page.next;
      alarm.hidden = true;
    } catch (error) {
      alarm.textContent = error.message;
      alarm.hidden = false;
    }
    more.hidden = next === null;
    draw();
  }
  const draw = () => list.update(items.filter(filter));
  async function act(button, action) {
    button.disabled = true;
    try {
      await action();
      await read();
    } catch (error) {
      alarm.textContent = error.message;
      alarm.hidden = false;
      button.disabled = false;
    }
  }
  return { read, draw, act, elements: [alarm, list.element, more] };
}

export function inbox({ params, go }) {
  const outcome = h("select", { onchange: () => (go(outcome.value ? `inbox?outcome=${outcome.value}` : "inbox", { replace: true, stay: true }), inboxPages.draw()) }, ["", ...Object.keys(OUTCOMES)].map((value) => h("option", { value, selected: value === (params.get("outcome") ?? "") }, value.replace("_", " ") || "any")));
  const list = table(
    "Notifications",
    [
      { title: "No.", cell: (each) => String(each.id), class: "n" },
      { title: "Came", cell: (each) => when(each.received_at, h) },
      { title: "Airbyte", cell: (each) => each.instance, class: "wide" },
      { title: "Kind", cell: (each) => each.kind },
      { title: "Job", cell: (each) => (each.job_id === null ? "–" : h("a", { href: `jobs/${encodeURIComponent(each.instance)}/${each.job_id}` }, String(each.job_id))) },
      { title: "What became of it", cell: (each) => h("span", { class: OUTCOMES[each.outcome] }, each.outcome.replace("_", " ")) },
      { title: "Settled", cell: (each) => when(each.settled_at, h), class: "wide" },
      { title: "Again", cell: (each) => (["ignored", "rejected"].includes(each.outcome) ? "" : replayButton(each)) },
    ],
    { key: (each) => each.id, stamp: (each) => `${each.outcome} ${each.settled_at}`, empty: "Nothing has come like that." },
  );
  const inboxPages = pages(
    async (before) => {
      const page = await api.notifications({ limit: 100, before });
      return { items: page.notifications, next: page.next };
    },
    list,
    (each) => !outcome.value || each.outcome === outcome.value,
  );
  const replayButton = (each) =>
    h("button", { type: "button", "aria-label": `Confirm notification ${each.id} again`, onclick: (event) => inboxPages.act(event.currentTarget, () => api.replay(each.id)) }, "Confirm again");
  inboxPages.read();
  return {
    title: "Inbox",
    element: h("div", {}, h("h1", {}, "Inbox"), h("form", { class: "filters" }, h("label", {}, "What became of it", outcome)), section("What Airbyte sent", ...inboxPages.elements)),
    refresh: 10_000,
    update: () => {},
    reread: () => inboxPages.read(),
  };
}

const STATES = { due: "odd", delivered: "good", dead: "bad" };

export function forwarding({ params, go }) {
  const chosen = h("select", { onchange: () => (go(chosen.value ? `forwarding?state=${chosen.value}` : "forwarding", { replace: true, stay: true }), forwarded.read()) }, ["", ...Object.keys(STATES)].map((value) => h("option", { value, selected: value === (params.get("state") ?? "") }, value || "any")));
  const list = table(
    "Deliveries",
    [
      { title: "No.", cell: (each) => String(each.id), class: "n" },
      { title: "To", cell: (each) => each.target.url ?? h("span", { class: "faint" }, "no longer in the settings") },
      { title: "What", cell: (each) => `${each.notification.id}: ${each.notification.kind}` },
      { title: "State", cell: (each) => h("span", { class: STATES[each.state] }, each.state) },
      { title: "Attempts", cell: (each) => String(each.attempts), class: "n" },
      { title: "Due", cell: (each) => (each.state === "due" ? when(each.due_at, h) : "–"), class: "wide" },
      { title: "Fault", cell: (each) => h("span", { class: "reason" }, each.fault ?? "") },
      { title: "Again", cell: (each) => (each.state === "dead" ? retryButton(each) : "") },
    ],
    { key: (each) => each.id, stamp: (each) => `${each.state} ${each.attempts} ${each.due_at}`, empty: "Nothing is forwarded like that." },
  );
  const forwarded = pages(async (before) => {
    const page = await api.deliveries({ limit: 100, before, state: chosen.value });
    return { items: page.deliveries, next: page.next };
  }, list);
  const retryButton = (each) =>
    h("button", { type: "button", "aria-label": `Send delivery ${each.id} again`, onclick: (event) => forwarded.act(event.currentTarget, () => api.retryDelivery(each.id)) }, "Send again");
  forwarded.read();
  return {
    title: "Forwarding",
    element: h("div", {}, h("h1", {}, "Forwarding"), h("form", { class: "filters" }, h("label", {}, "State", chosen)), section("What is passed on", ...forwarded.elements)),
    refresh: 10_000,
    update: () => {},
    reread: () => forwarded.read(),
  };
}
