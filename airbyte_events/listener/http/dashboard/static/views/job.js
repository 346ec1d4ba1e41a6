import { actions, body } from "../actions.js";
import * as api from "../api.js";
import { h, patch, section, table } from "../dom.js";
import { connectionLink, asOf, jobStamp, detected, progress, reason, state, taskLink, volume, volumeStamp } from "../parts.js";
import { waterfall } from "../waterfall.js";
import { published } from "../webhooks.js";
import { ago, bytes, duration, ended, farBeyond, nameOf, number, seconds, when } from "../words.js";

const BY = { webhook: "reported by a webhook, confirmed by the API", poll: "detected by a poll", submit: "read on demand for a new watch" };

export function job({ live, who, instance, id }) {
  const title = h("h1", {}, `Job ${id}`);
  const alarm = h("p", { class: "alarm", hidden: true });
  const why = h("p", { class: "alarm", hidden: true });
  const facts = h("dl", { class: "facts" });
  const events = h("ol", { class: "history" });
  const none = h("p", { class: "empty" }, "Its events are no longer stored.");
  const steps = waterfall();
  const [acts, content] = [actions(), body()];
  const fresh = asOf();
  const streams = table(
    "Streams",
    [
      { title: "Stream", cell: (each) => streamOf(each), class: "long" },
      { title: "Records read", cell: (each) => number(each.records), class: "n" },
      { title: "Bytes read", cell: (each) => bytes(each.bytes), class: "n" },
    ],
    { key: streamOf, stamp: (each) => `${each.records} ${each.bytes}`, empty: "" },
  );
  const readSoFar = section("Streams", streams.element);
  readSoFar.hidden = true;
  const known = h("div", { hidden: true }, section("Details", facts), readSoFar, steps.element, content.element, section("History", events, none, fresh.element));
  /** @type {api.Progress | null} */
  let moved = null;
  /** @type {Awaited<ReturnType<typeof api.job>> | null} */
  let told = null;
  let seen = "";

  async function read() {
    try {
      told = await api.job(instance, id);
      live.name(told.job);
      alarm.hidden = true;
      fresh.mark();
    } catch (error) {
      alarm.textContent = error.message;
      alarm.hidden = false;
    }
    draw();
    await follow();
  }

  /** Ask how far the job is, while it is active and somebody looks. */
  async function follow() {
    if (!told || ended(told.job)) {
      moved = null;
    } else {
      const found = await api.progress(instance, [id], true).catch(() => ({ progress: [] }));
      moved = found.progress[0] ?? moved;
    }
    draw();
  }

  function draw() {
    if (!told) return;
    const { job, history, notification } = told;
    const usual = live.usual(job);
    known.hidden = false;
    title.replaceChildren(`Job ${job.job_id}`, job.instance === "default" ? "" : ` of ${job.instance}`, " ", state(job));
    why.hidden = !job.error;
    why.replaceChildren(job.error ? reason(job) : "");
    const fact = (name, stamp, make) => ({ name, stamp, make });
    patch(
      facts,
      [
        fact("Connection", nameOf(job), () => connectionLink(job)),
        fact("Source", job.names?.source, () => job.names?.source ?? "–"),
        fact("Destination", job.names?.destination, () => job.names?.destination ?? "–"),
        fact("Workspace", job.names?.workspace ?? job.workspace_id, () => job.names?.workspace ?? job.workspace_id ?? "–"),
        fact("Type", job.job_type, () => job.job_type ?? "–"),
        fact("Started", job.started_at, () => moment(job.started_at)),
        fact("Completed", job.finished_at, () => moment(job.finished_at)),
        fact(ended(job) ? "Duration" : "Running for", `${jobStamp(job)} ${usual}`, () => (ended(job) ? took(job, usual) : progress(job, usual))),
        ended(job) ? fact("Records", job.records, () => number(job.records)) : fact("Moved", volumeStamp(moved), () => [volume(moved), still(moved)]),
        fact("Bytes", job.bytes ?? moved?.bytes, () => bytes(job.bytes ?? moved?.bytes)),
        fact("Detected by", `${jobStamp(job)} ${notification?.settled_at}`, () => [detected(job), waited(published(job, notification))]),
        fact("Reported by webhook only", String(job.unconfirmed ?? ""), () => (job.unconfirmed ?? []).join(", ").replaceAll("_", " ") || "–"),
        fact("In Airbyte", job.url, () => (job.url && /^https?:/.test(job.url) ? [h("a", { href: jobInAirbyte(job), rel: "noreferrer" }, `Job ${job.job_id}`), ", ", h("a", { href: job.url, rel: "noreferrer" }, "connection")] : "–")),
        ...(job.task_url ? [fact("Task", job.task_url, () => taskLink(job.task_url) ?? "–")] : []),
      ],
      (each) => each.name,
      (each) => each.stamp,
      (each) => h("div", {}, h("dt", {}, each.name), h("dd", {}, each.make())),
    );
    steps.update(job, notification);
    readSoFar.hidden = !moved?.streams?.length || ended(job);
    streams.update(moved?.streams ?? []);
    acts.update(job, who.operator);
    content.update(notification, who.operator);
    const entries = history.map(({ data, id: cursor }) => ({ key: cursor, at: data.observed_at, stamp: cursor, make: () => event(data, cursor) }));
    // In front: of the same moment, it came first.
    if (notification) entries.unshift({ key: "webhook", at: notification.received_at, stamp: notification.outcome + notification.settled_at, make: () => webhook(notification) });
    entries.sort((a, b) => (a.at < b.at ? -1 : a.at > b.at ? 1 : 0));
    patch(events, entries, (each) => each.key, (each) => each.stamp, (each) => each.make());
    none.hidden = history.length > 0;
  }

  return {
    title: `Job ${id}`,
    refresh: 10_000,
    reread: () => (told && ended(told.job) && awaitsReceipt(told.job) ? read() : follow()),
    element: h("div", {}, title, alarm, why, ...acts.elements, known),
    update() {
      const now = live.jobs.get(`${instance}/${id}`);
      const stamp = now ? jobStamp(now) : "none";
      if (stamp !== seen) {
        seen = stamp;
        read();
      } else draw();
    },
  };
}

const streamOf = (stream) => [stream.namespace, stream.name].filter(Boolean).join(".");

const still = (moved) => (moved && moved.unchanged_seconds >= 60 ? h("div", { class: "odd" }, `unchanged for ${duration(moved.unchanged_seconds)}`) : null);

/** The job's log in the connection's timeline, as in the provider's link *Airbyte job*. */
const jobInAirbyte = ({ url, job_id }) => `${url.replace(/\/+$/, "")}/timeline?${new URLSearchParams({ openLogs: "true", jobId: String(job_id) })}`;

/** Tasks report their receipts about a second after the completion. */
const AWAITED = 300_000;
const awaitsReceipt = (/** @type {api.Job} */ job) => job.task_url && !job.receipts && Date.now() - Date.parse(job.observed_at) < AWAITED;

const moment = (text) => (text ? [when(text, true), h("div", { class: "faint" }, ago(text))] : "–");

const waited = (late) => (late === null ? null : h("div", {}, `published ${duration(late)} after the webhook arrived`));

const took = (job, usual) => [h("span", { class: farBeyond(seconds(job), usual) ? "bad" : "" }, duration(seconds(job))), usual === null ? null : h("span", { class: "faint" }, `, usually ${duration(usual)}`)];

const event = (data, cursor) =>
  h("li", {}, state(data), " ", when(data.observed_at, true), h("div", { class: "faint" }, `${BY[data.origin] ?? data.origin} · event ${cursor}`));

const webhook = (notification) =>
  h(
    "li",
    {},
    "Webhook received: ",
    h("a", { href: `inbox?job=${notification.job_id}` }, `notification ${notification.id}`),
    `, ${notification.kind}, ${notification.outcome.replaceAll("_", " ")} `,
    when(notification.received_at, true),
    notification.settled_at ? h("div", { class: "faint" }, "settled ", when(notification.settled_at, true)) : null,
  );
