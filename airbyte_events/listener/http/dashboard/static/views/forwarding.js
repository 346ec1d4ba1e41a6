import * as api from "../api.js";
import { h, section, table } from "../dom.js";
import { when } from "../words.js";
import { reader } from "./lists.js";

const STATES = { due: "odd", delivered: "good", dead: "bad" };

const OUTGOING = "notify/";

/** The name of a target of outgoing notifications, and the host of any. */
function target({ target: { name, url } }) {
  const host = url ?? h("span", { class: "faint" }, "no longer in the settings");
  return name.startsWith(OUTGOING) ? h("span", {}, `${name.slice(OUTGOING.length)} `, host) : host;
}

function notification({ notification: { id, instance, kind, job_id } }) {
  if (kind !== "completion") return `${id}: ${kind.replaceAll("_", " ")}`;
  return h("a", { href: `jobs/${encodeURIComponent(instance)}/${job_id}` }, `completed job ${job_id}`);
}

export function forwarding({ params, go, keep, place }) {
  const chosen = params.get("state") ?? "";
  const state = h("select", { onchange: () => change() }, ["", ...Object.keys(STATES)].map((value) => h("option", { value, selected: value === chosen }, value || "any")));
  const list = table(
    "Deliveries",
    [
      { title: "No.", cell: (each) => String(each.id), class: "n" },
      { title: "Target", cell: target, class: "long" },
      { title: "Notification", cell: notification, class: "long" },
      { title: "State", cell: (each) => h("span", { class: STATES[each.state] }, each.state) },
      { title: "Attempts", cell: (each) => String(each.attempts), class: "n" },
      { title: "Due", cell: (each) => (each.state === "due" ? when(each.due_at) : "–") },
      { title: "Error", cell: (each) => h("span", { class: "reason" }, each.fault ?? "–"), class: "long" },
      { title: "Action", cell: (each) => (each.state === "dead" ? button(each) : "–") },
    ],
    { key: (each) => each.id, stamp: (each) => `${each.state} ${each.attempts} ${each.due_at}`, empty: "No matching deliveries." },
  );
  const deliveries = reader(
    async (limit, before) => {
      const page = await api.deliveries({ limit, before });
      return { items: page.deliveries, next: page.next };
    },
    list,
    { matches: (each) => !state.value || each.state === state.value, shown: place.shown, kept: (shown) => keep({ shown }) },
  );
  const button = (each) =>
    h("button", { type: "button", "aria-label": `Send delivery ${each.id} again`, onclick: (event) => deliveries.act(event.currentTarget, each.id, () => api.retryDelivery(each.id)) }, "Send again");

  function change() {
    go(state.value ? `forwarding?state=${state.value}` : "forwarding", { stay: true });
    deliveries.refilter();
  }

  return {
    title: "Forwarding",
    element: h("div", {}, h("h1", {}, "Forwarding"), h("form", { class: "filters" }, h("label", {}, "State", state)), section("Deliveries", ...deliveries.elements)),
    refresh: 5_000,
    ready: deliveries.refresh(),
    update: () => {},
    reread: () => deliveries.refresh(),
  };
}
