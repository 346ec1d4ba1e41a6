import * as api from "../api.js";
import { h, section } from "../dom.js";
import { connectionLink, learnt, progress, reason, state, usualTime } from "../parts.js";
import { ORIGINS, bytes, connectionKey, duration, ended, nameOf, number, seconds, when } from "../words.js";

const BY = { webhook: "Airbyte’s webhook came, and the API confirmed it", poll: "found by a look at Airbyte", submit: "asked for because somebody began to wait" };

export function job({ live, instance, id }) {
  const element = h("div", {}, h("h1", {}, `Job ${id}`));
  let told = null;
  let seen = "";

  async function read() {
    try {
      told = await api.job(instance, id);
      live.name(told.job);
    } catch (error) {
      element.replaceChildren(h("h1", {}, `Job ${id}`), h("p", { class: "alarm" }, error.message));
      return;
    }
    draw();
  }

  function draw() {
    const { job, history, notification } = told;
    const others = live.connections().get(connectionKey(job)) ?? [];
    const fact = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));
    element.replaceChildren(
      h("h1", {}, `Job ${job.job_id}`, job.instance === "default" ? "" : ` of ${job.instance}`, " ", state(job)),
      ...(job.error ? [h("p", { class: "alarm" }, reason(job))] : []),
      section(
        "What is known",
        h(
          "dl",
          { class: "facts" },
          fact("Connection", connectionLink(job)),
          fact("Source", job.names?.source ?? "–"),
          fact("Destination", job.names?.destination ?? "–"),
          fact("Workspace", job.names?.workspace ?? job.workspace_id ?? "–"),
          fact("Type", job.job_type ?? "–"),
          fact("Started", when(job.started_at, h)),
          fact("Ended", when(job.finished_at, h)),
          fact("Time", ended(job) ? duration(seconds(job)) : progress(job, usualTime(others))),
          fact("Records", number(job.records)),
          fact("Bytes", bytes(job.bytes)),
          fact("End learnt by", learnt(job)),
          fact("In Airbyte", job.url && /^https?:/.test(job.url) ? h("a", { href: job.url, rel: "noreferrer" }, nameOf(job)) : "–"),
        ),
      ),
      section(
        "History",
        h(
          "ol",
          { class: "history" },
          history.map(({ data, id: cursor }) =>
            h("li", {}, state(data), " ", when(data.observed_at, h), h("div", { class: "faint" }, `${BY[data.origin] ?? ORIGINS[data.origin]} · event ${cursor}`)),
          ),
          notification
            ? h("li", {}, `Webhook ${notification.id}: ${notification.kind}, ${notification.outcome.replace("_", " ")}`, " ", when(notification.received_at, h), notification.settled_at ? h("div", { class: "faint" }, "settled ", when(notification.settled_at, h)) : null)
            : null,
        ),
        history.length ? null : h("p", { class: "empty" }, "Its events are no longer kept."),
      ),
    );
  }

  return {
    title: `Job ${id}`,
    element,
    refresh: 2000,
    update() {
      const now = live.jobs.get(`${instance}/${id}`);
      const stamp = now ? `${now.status} ${now.observed_at}` : "none";
      if (stamp !== seen) {
        seen = stamp;
        read();
      } else if (told && !ended(told.job)) draw();
    },
  };
}
