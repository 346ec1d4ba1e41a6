import { h, patch, section, table, write } from "../dom.js";
import { JOB_COLUMNS, connectionLink, jobLink, jobStamp, progress, reason, state, usualTime } from "../parts.js";
import { DAY, Inbox, announceable, health, published } from "../webhooks.js";
import { ago, connectionKey, duration, ended, idOf, lateness, median, number } from "../words.js";

const SHOWN = 15;
const FAILURES = 8;

export function overview({ live }) {
  const received = new Inbox();
  const tiles = h("dl", { class: "tiles" });
  const usual = (job) => usualTime(live.connections().get(connectionKey(job)) ?? []);
  const running = table(
    "Running jobs",
    [
      { title: "Job", cell: jobLink },
      { title: "State", cell: state },
      { title: "Connection", cell: connectionLink, class: "long" },
      { title: "Elapsed time", cell: (job) => progress(job, usual(job)), class: "long" },
    ],
    { key: idOf, stamp: (job) => `${jobStamp(job)} ${usual(job)}`, empty: "No running jobs." },
  );
  const more = h("p", {});
  const ends = table("Recent jobs", JOB_COLUMNS, { key: idOf, stamp: jobStamp, empty: "No completed jobs yet." });
  const failures = h("ul", { class: "failures" });
  const none = h("p", { class: "empty" }, "No recent failures.");
  const webhooks = table(
    "Webhooks by workspace",
    [
      { title: "Workspace", cell: (each) => [each.workspace ?? h("span", { class: "faint" }, "unknown"), h("span", { class: "faint" }, ` · ${each.instance}`)], class: "long" },
      { title: "Reported", cell: (each) => number(each.announced), class: "n" },
      { title: "Missed", cell: (each) => h("span", { class: each.missed ? "bad" : "" }, number(each.missed)), class: "n" },
      { title: "Refused", cell: (each) => (each.refused ? h("a", { href: "inbox?outcome=refused" }, number(each.refused)) : "0"), class: "n" },
      { title: "Last received", cell: (each) => (each.last ? ago(each.last) : "–"), class: "tight" },
    ],
    { key: (each) => each.key, stamp: (each) => JSON.stringify(each), empty: "No syncs completed in the last 24 h." },
  );
  const partial = h("p", { class: "faint" });
  const page = h(
    "div",
    {},
    h("h1", {}, "Overview"),
    tiles,
    section("Running", running.element, more),
    section("Recent jobs", ends.element, h("p", {}, h("a", { href: "jobs" }, "All jobs"))),
    h("div", { class: "columns" }, section("Failures", failures, none), section("Webhooks, 24 h", webhooks.element, partial)),
  );

  function update() {
    const jobs = live.newest();
    const active = jobs.filter((job) => !ended(job));
    const done = jobs.filter(ended);
    patch(tiles, tilesOf(active, done, live, received.items), (each) => each.key, JSON.stringify, tile);
    running.update(active.toReversed().slice(0, SHOWN));
    patch(more, active.length > SHOWN ? [active.length] : [], () => "more", String, (count) => h("a", { href: "jobs?active=yes" }, `All ${number(count)} running jobs`));
    ends.update(done.slice(0, SHOWN));
    const failed = done.filter((job) => job.status === "failed").slice(0, FAILURES);
    none.hidden = failed.length > 0;
    patch(failures, failed, idOf, jobStamp, failure);
    webhooks.update(health(live.jobs, received.items));
    write(partial, received.trouble || (received.complete ? "" : "Loading the inbox …"));
  }

  const read = () => received.read().then(update);
  return { title: "Overview", element: page, refresh: 10_000, ready: read(), update, reread: read };
}

const failure = (job) => h("li", {}, "Job ", jobLink(job), " of ", connectionLink(job), ", ", ago(job.finished_at ?? job.observed_at), h("div", {}, reason(job)));

function tilesOf(active, done, live, notifications) {
  const since = Date.now() - DAY;
  const today = done.filter((job) => Date.parse(job.finished_at ?? job.observed_at) > since);
  const count = (status) => today.filter((job) => job.status === status).length;
  const polled = today.filter((job) => job.origin === "poll");
  const waits = [...notifications.values()].map((each) => published(live.jobs.get(`${each.instance}/${each.job_id}`), each));
  const syncs = today.filter(announceable);
  const pushed = syncs.filter((job) => job.origin === "webhook").length;
  return [
    { key: "running", name: "Running", value: number(active.length), note: live.complete ? "" : "loading …" },
    { key: "succeeded", name: "Succeeded, 24 h", value: number(count("succeeded")), note: "" },
    { key: "failed", name: "Failed, 24 h", value: number(count("failed")), note: count("cancelled") ? `and ${number(count("cancelled"))} cancelled` : "" },
    { key: "share", name: "Detected by webhook, 24 h", value: syncs.length ? `${Math.round((100 * pushed) / syncs.length)} %` : "–", note: "of syncs that succeeded or failed" },
    { key: "push", name: "Published after webhook", value: duration(median(waits)), note: "median, 24 h: from the webhook's arrival to the event" },
    { key: "poll", name: "Detected by poll after", value: duration(median(polled.map(lateness))), note: "median, 24 h: from the job's completion, in whole seconds" },
  ];
}

const tile = ({ name, value, note }) => h("div", {}, h("dt", {}, name), h("dd", {}, value, note ? h("small", {}, note) : null));
