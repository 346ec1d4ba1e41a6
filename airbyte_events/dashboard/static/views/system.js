import * as api from "../api.js";
import { h, section } from "../dom.js";
import { ago, bytes, duration, number, when } from "../words.js";

export function system() {
  const element = h("div", {}, h("h1", {}, "System"));
  const fact = (name, value, kind = "") => h("div", {}, h("dt", {}, name), h("dd", { class: kind }, value));

  async function read() {
    let told;
    try {
      told = await api.status();
    } catch (error) {
      element.replaceChildren(h("h1", {}, "System"), h("p", { class: "alarm" }, error.message));
      return;
    }
    const { listener, store, instances } = told;
    element.replaceChildren(
      h("h1", {}, "System"),
      section(
        "This listener",
        h("dl", { class: "facts" }, fact("Version", listener.version), fact("Runs since", when(listener.started_at, h)), fact("Followed by", number(listener.subscriptions)), fact("Ready", Object.entries(listener.faults).map(([part, fault]) => `${part} ${fault}`).join("; ") || "yes", Object.keys(listener.faults).length ? "bad" : "good")),
      ),
      section(
        "Store",
        h("dl", { class: "facts" }, fact("Size", bytes(store.bytes)), fact("Head", number(store.head)), fact("Events kept", number(store.events)), fact("Jobs", number(store.jobs)), fact("Notifications", number(store.notifications)), fact("Waiting to be confirmed", number(store.pending), store.pending > 100 ? "odd" : ""), fact("To be forwarded", number(store.due)), fact("Given up", number(store.dead), store.dead ? "bad" : "")),
      ),
      ...instances.map((each) =>
        section(
          `Airbyte ${each.name}`,
          h(
            "dl",
            { class: "facts" },
            fact("API", each.url),
            fact("Looked after", each.here_since ? h("span", {}, "here, since ", when(each.here_since, h)) : "by another listener, if any", each.here_since ? "good" : ""),
            fact("Push", each.push_proven === null ? "–" : each.push_proven ? "proven" : "not proven yet", each.push_proven ? "good" : "odd"),
            fact("Jobs watched", number(each.watched)),
            fact("Looks every", duration(each.seconds_between_looks)),
            fact("Last look", each.looked_at ? ago(each.looked_at) : "–"),
            fact("Failed looks in a row", number(each.failed_looks), each.failed_looks ? "bad" : ""),
            fact("Backing off for", each.backoff_seconds ? duration(each.backoff_seconds) : "no", each.backoff_seconds ? "odd" : ""),
            fact("Looks and reads here", `${number(each.counters.looks)} and ${number(each.counters.reads)}`),
            fact("Syncs announced and missed here", `${number(each.counters.announced)} and ${number(each.counters.missed)}`, each.counters.missed ? "odd" : ""),
            fact("Contradictions here", number(each.counters.contradictions), each.counters.contradictions ? "odd" : ""),
          ),
        ),
      ),
    );
  }
  read();
  return { title: "System", element, refresh: 5000, update: () => {}, reread: read };
}
