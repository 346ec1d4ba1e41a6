import * as api from "../api.js";
import { h, section, table } from "../dom.js";
import { NOT_CONFIRMED } from "../webhooks.js";
import { ago, duration } from "../words.js";
import { reader } from "./lists.js";

const OUTCOMES = {
  pending: ["waiting for confirmation", "odd"],
  confirmed: ["confirmed", "good"],
  unconfirmed: ["contradicted by the API", "bad"],
  unknown_job: ["job unknown to the API", "bad"],
  ignored: ["reports no completion", "faint"],
  rejected: ["unreadable", "bad"],
};

export function inbox({ params, go, keep, place }) {
  const chosen = params.get("outcome") ?? "";
  const choice = (value, text) => h("option", { value, selected: value === chosen }, text);
  const outcome = h("select", {}, choice("", "any"), choice("not_confirmed", "not confirmed for any reason"), Object.entries(OUTCOMES).map(([value, [text]]) => choice(value, text)));
  const search = h("input", { type: "search", value: params.get("job") ?? "", inputmode: "numeric", autocomplete: "off" });
  const filters = h(
    "form",
    { class: "filters", role: "search", onsubmit: (event) => event.preventDefault(), oninput: () => change() },
    h("label", {}, "Job", search),
    h("label", {}, "Result", outcome),
  );
  const list = table(
    "Notifications",
    [
      { title: "No.", cell: (each) => String(each.id), class: "n" },
      { title: "Received", cell: (each) => ago(each.received_at) },
      { title: "Airbyte", cell: (each) => each.instance },
      { title: "Kind", cell: (each) => each.kind.replaceAll("_", " ") },
      { title: "Job", cell: (each) => (each.job_id === null ? "–" : h("a", { href: `jobs/${encodeURIComponent(each.instance)}/${each.job_id}` }, String(each.job_id))) },
      { title: "Result", cell: (each) => h("span", { class: OUTCOMES[each.outcome][1] }, OUTCOMES[each.outcome][0]) },
      { title: "Processing time", cell: (each) => (each.settled_at ? duration((Date.parse(each.settled_at) - Date.parse(each.received_at)) / 1000) : "–"), class: "n" },
      { title: "Action", cell: (each) => (["ignored", "rejected"].includes(each.outcome) ? "–" : button(each)) },
    ],
    { key: (each) => each.id, stamp: (each) => `${each.outcome} ${each.settled_at}`, empty: "No matching notifications." },
  );
  const notifications = reader(
    async (limit, before) => {
      const page = await api.notifications({ limit, before });
      return { items: page.notifications, next: page.next };
    },
    list,
    {
      matches: (each) =>
        (!outcome.value || each.outcome === outcome.value || (outcome.value === "not_confirmed" && NOT_CONFIRMED.has(each.outcome))) &&
        (!search.value.trim() || String(each.job_id) === search.value.trim()),
      shown: place.shown,
      kept: (shown) => keep({ shown }),
    },
  );
  const button = (each) =>
    h("button", { type: "button", "aria-label": `Confirm notification ${each.id} again`, onclick: (event) => notifications.act(event.currentTarget, each.id, () => api.replay(each.id)) }, "Confirm again");

  function change() {
    const wanted = Object.entries({ job: search.value.trim(), outcome: outcome.value }).filter(([, value]) => value);
    go(wanted.length ? `inbox?${new URLSearchParams(wanted)}` : "inbox", { stay: true });
    notifications.refilter();
  }

  return {
    title: "Inbox",
    element: h("div", {}, h("h1", {}, "Inbox"), filters, section("Notifications from Airbyte", ...notifications.elements)),
    refresh: 5_000,
    ready: notifications.refresh(),
    update: () => {},
    reread: () => notifications.refresh(),
  };
}
