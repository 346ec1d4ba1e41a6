import * as api from "../api.js";
import { h, patch, section, table } from "../dom.js";
import { asOf } from "../parts.js";
import { ago, bytes, duration, number, when } from "../words.js";

/** Facts under a heading: `update([[name, value, class]])`, where a value is a text or `{stamp, make}`. */
function facts(title) {
  const list = h("dl", { class: "facts" });
  const make = ([name, value, kind]) => h("div", {}, h("dt", {}, name), h("dd", { class: kind }, value?.make ? value.make() : value));
  return {
    element: section(title, list),
    update: (items) => patch(list, items, ([name]) => name, ([, value, kind]) => `${value?.stamp ?? value} ${kind}`, make),
  };
}

const at = (text, make = when) => (text ? { stamp: text, make: () => make(text) } : "–");
const odd = (value, kind = "odd") => (value ? kind : "");

export function system() {
  const alarm = h("p", { class: "alarm", role: "alert", hidden: true });
  const [here, webhooks, store] = [facts("This listener"), facts("Webhook responses of this listener"), facts("Store")];
  const leases = table(
    "Leases",
    [
      { title: "Lease", cell: (each) => (each.name.startsWith("sources/") ? `leader for ${each.name.slice(8)}` : each.name) },
      { title: "Held by", cell: (each) => [each.holder, each.here ? h("strong", {}, " (this listener)") : ""], class: "long" },
    ],
    { key: (each) => each.name, stamp: (each) => each.holder, empty: "No lease is held." },
  );
  const airbytes = h("div", {});
  const known = new Map();
  const fresh = asOf();
  const element = h("div", {}, h("h1", {}, "System"), fresh.element, alarm, here.element, webhooks.element, store.element, section("Leader election", leases.element), airbytes);

  async function read() {
    let told;
    try {
      told = await api.status();
    } catch (error) {
      alarm.textContent = error.message;
      alarm.hidden = false;
      return;
    }
    alarm.hidden = true;
    fresh.mark();
    const { listener } = told;
    const faults = Object.entries(listener.faults).map(([part, fault]) => `${part} ${fault}`);
    here.update([
      ["Version", listener.version],
      ["Name", listener.name],
      ["Started", at(listener.started_at)],
      ["Subscriptions", listener.subscriptions === 1 ? "1 stream" : `${number(listener.subscriptions)} streams`],
      ["Ready", faults.join("; ") || "yes", faults.length ? "bad" : "good"],
    ]);
    webhooks.update(answers(listener.webhooks));
    store.update(kept(told.store));
    leases.update(told.leases.map((each) => ({ ...each, here: each.holder === listener.name })));
    for (const each of told.instances) {
      if (!known.has(each.name)) {
        known.set(each.name, facts(`Airbyte ${each.name}`));
        airbytes.append(known.get(each.name).element);
      }
      known.get(each.name).update(airbyte(each, told.leases.find(({ name }) => name === `sources/${each.name}`)?.holder));
    }
  }

  return { title: "System", element, refresh: 5000, ready: read(), update: () => {}, reread: read };
}

function answers(webhooks) {
  const of = (...statuses) => statuses.reduce((sum, status) => sum + (webhooks[status] ?? 0), 0);
  return [
    ["Accepted", number(of("202"))],
    ["Accepted, nothing to confirm", number(of("200"))],
    ["Refused: wrong token, address or name", number(of("404", "429")), odd(of("404", "429"))],
    ["Refused: not a notification", number(of("400", "413")), odd(of("400", "413"))],
    ["Not stored", number(of("503")), odd(of("503"), "bad")],
  ];
}

const kept = (store) => [
  ["Size", bytes(store.bytes)],
  ["Newest event", number(store.head)],
  ["Events", number(store.events)],
  ["Jobs", number(store.jobs)],
  ["Notifications", number(store.notifications)],
  ["Waiting for confirmation", number(store.pending), odd(store.pending > 100)],
  ["Deliveries due", number(store.due)],
  ["Deliveries given up", number(store.dead), odd(store.dead, "bad")],
];

const airbyte = (each, holder) => [
  ["API", each.url],
  ["Leader", each.here_since ? { stamp: each.here_since, make: () => ["this listener, since ", when(each.here_since)] } : holder ? holder : "none", each.here_since ? "good" : holder ? "" : "bad"],
  ["Webhooks", each.push_proven === null ? "–" : each.push_proven ? "proven to work" : "not proven yet", each.push_proven === false ? "odd" : ""],
  ["Jobs watched", number(each.watched)],
  ["Poll interval", duration(each.seconds_between_looks)],
  ["Last poll", at(each.looked_at, ago)],
  ["Failed polls in a row", number(each.failed_looks), odd(each.failed_looks, "bad")],
  ["Back-off", each.backoff_seconds ? `for another ${duration(each.backoff_seconds)}` : "no", odd(each.backoff_seconds)],
  ["Polls by this listener", number(each.counters.looks)],
  ["Jobs read one by one", number(each.counters.reads)],
  ["Syncs reported by webhook", number(each.counters.announced)],
  ["Syncs missed by webhooks", number(each.counters.missed), odd(each.counters.missed)],
  ["Contradictions", number(each.counters.contradictions), odd(each.counters.contradictions)],
  ["Reused job ids", number(each.counters.reused), odd(each.counters.reused)],
];
