import * as api from "../api.js";
import { byCause } from "../causes.js";
import { h, patch, section, table, write } from "../dom.js";
import { asOf, causes, connectionLink, jobColumns, jobLink, jobStamp, missedRemedy, progress, rowStamp, state, volume, volumeStamp } from "../parts.js";
import { DAY, Inbox, announceable, health, published } from "../webhooks.js";
import { ago, duration, ended, idOf, lateness, median, nameOf, number } from "../words.js";

const SHOWN = 15;
const CAUSES = 5;
const SIGNALS = 20;

export function overview({ live }) {
  const received = new Inbox();
  const tiles = h("dl", { class: "tiles" });
  /** @type {Map<string, api.Progress>} */
  let moved = new Map();
  /** @type {api.Signal[]} */
  let raised = [];
  const signals = h("ul", { class: "failures" });
  const late = h("p", { class: "faint" });
  const raisedNow = section("Late and stalled", signals, late);
  raisedNow.hidden = true;
  let asked = ""; // the jobs whose progress was asked for last
  const running = table(
    "Running jobs",
    [
      { title: "Job", cell: jobLink },
      { title: "State", cell: state },
      { title: "Connection", cell: connectionLink, class: "long" },
      { title: "Elapsed time", cell: (job) => progress(job, live.usual(job)), class: "long" },
      { title: "Moved", cell: (job) => volume(moved.get(idOf(job))), class: "long" },
    ],
    { key: idOf, stamp: (job) => `${jobStamp(job)} ${live.usual(job)} ${volumeStamp(moved.get(idOf(job)))}`, empty: "No running jobs." },
  );
  const more = h("p", {});
  const ends = table("Recent jobs", jobColumns(live), { key: idOf, stamp: rowStamp(live), empty: "No completed jobs yet." });
  const failures = h("ul", { class: "failures" });
  const none = h("p", { class: "empty" }, "No failures in the last 24 h.");
  const webhooks = table(
    "Webhooks by workspace",
    [
      { title: "Workspace", cell: (each) => [each.workspace ?? h("span", { class: "faint" }, "unknown"), h("span", { class: "faint" }, ` · ${each.instance}`)], class: "long" },
      { title: "Reported", cell: (each) => number(each.announced), class: "n" },
      { title: "Missed", cell: (each) => (each.missed ? h("a", { class: "bad", href: "jobs?since=24h&origin=poll&type=sync" }, number(each.missed)) : "0"), class: "n" },
      { title: "Not confirmed", cell: (each) => (each.notConfirmed ? h("a", { href: "inbox?outcome=not_confirmed" }, number(each.notConfirmed)) : "0"), class: "n" },
      { title: "Last received", cell: (each) => (each.last ? ago(each.last) : "–"), class: "tight" },
      { title: "Remedy", cell: (each) => (each.missed ? missedRemedy(each.instance) : "–"), class: "long" },
    ],
    { key: (each) => each.key, stamp: (each) => JSON.stringify(each), empty: "No syncs completed in the last 24 h." },
  );
  const fresh = asOf();
  const partial = h("p", { class: "faint" });
  const page = h(
    "div",
    {},
    h("h1", {}, "Overview"),
    raisedNow,
    section("Failures, 24 h", failures, none),
    tiles,
    section("Running", running.element, more),
    section("Recent jobs", ends.element, h("p", {}, h("a", { href: "jobs" }, "All jobs"))),
    section("Webhooks, 24 h", webhooks.element, partial, fresh.element),
  );

  function update() {
    const jobs = live.newest();
    const active = jobs.filter((job) => !ended(job));
    const done = jobs.filter(ended);
    patch(tiles, tilesOf(active, done, live, received.items), (each) => each.key, JSON.stringify, tile);
    raisedNow.hidden = raised.length === 0;
    write(late, raised.length > SIGNALS ? "and more: GET v1/signals lists them all" : "");
    patch(signals, raised.slice(0, SIGNALS), signalKey, (each) => each.message + nameOf(live.name(each)), (each) => signalItem(live.name(each)));
    running.update(shownOf(active));
    const ids = shownOf(active).map(idOf).join();
    if (ids !== asked) {
      asked = ids;
      follow().then(update);
    }
    patch(more, active.length > SHOWN ? [active.length] : [], () => "more", String, (count) => h("a", { href: "jobs?active=yes" }, `All ${number(count)} running jobs`));
    ends.update(done.slice(0, SHOWN));
    const since = new Date(Date.now() - DAY).toISOString();
    const failed = byCause(done.filter((job) => (job.finished_at ?? job.observed_at) > since));
    none.hidden = failed.length > 0;
    causes(failures, failed.slice(0, CAUSES), (group) => `jobs?${new URLSearchParams({ since: "24h", cause: group.cause })}`, failed.length - CAUSES);
    webhooks.update(health(live.jobs, received.items));
    write(partial, received.trouble || (received.complete ? "" : "Loading the inbox …"));
  }

  async function look() {
    const found = await api.signals({ raised: "true", limit: SIGNALS + 1 }).catch(() => ({ signals: raised }));
    raised = found.signals;
  }

  async function follow() {
    const jobs = shownOf(live.newest().filter((job) => !ended(job)));
    const instances = [...new Set(jobs.map((job) => job.instance))];
    const pages = instances.map((name) => api.progress(name, jobs.filter((job) => job.instance === name).map((job) => job.job_id)));
    const found = (await Promise.all(pages.map((page) => page.catch(() => ({ progress: [] }))))).flatMap((page) => page.progress);
    const shown = new Set(jobs.map(idOf));
    moved = new Map([...[...moved].filter(([id]) => shown.has(id)), .../** @type {[string, api.Progress][]} */ (found.map((each) => [idOf(each), each]))]);
  }

  const read = () =>
    Promise.all([received.read(), follow(), look()]).then(() => {
      if (!received.trouble) fresh.mark();
      update();
    });
  return { title: "Overview", element: page, refresh: 10_000, ready: read(), update, reread: read };
}

const signalKey = (each) => `${each.instance} ${each.signal} ${each.job_id ?? each.connection_id}`;

const signalItem = (each) =>
  h(
    "li",
    {},
    h("strong", { class: "odd" }, each.signal),
    " ",
    connectionLink(each),
    each.job_id === null ? null : [", job ", jobLink(each)],
    ", raised ",
    ago(each.observed_at),
    h("div", {}, each.message),
  );

/** The running jobs that are shown, the longest running first. */
const shownOf = (active) => active.toReversed().slice(0, SHOWN);

function tilesOf(active, done, live, notifications) {
  const since = Date.now() - DAY;
  const today = done.filter((job) => Date.parse(job.finished_at ?? job.observed_at) > since);
  const count = (status) => today.filter((job) => job.status === status).length;
  const polled = today.filter((job) => job.origin === "poll");
  const waits = [...notifications.values()].map((each) => published(live.jobs.get(`${each.instance}/${each.job_id}`), each));
  const syncs = today.filter(announceable);
  const pushed = syncs.filter((job) => job.origin === "webhook").length;
  return [
    { key: "running", name: "Running", value: number(active.length), note: live.complete ? "" : "loading …", path: "jobs?active=yes" },
    { key: "succeeded", name: "Succeeded, 24 h", value: number(count("succeeded")), note: "" },
    { key: "failed", name: "Failed, 24 h", value: number(count("failed")), note: count("cancelled") ? `and ${number(count("cancelled"))} cancelled` : "", path: "jobs?status=failed&since=24h" },
    { key: "share", name: "Detected by webhook, 24 h", value: syncs.length ? `${Math.round((100 * pushed) / syncs.length)} %` : "–", note: "of syncs that succeeded or failed" },
    { key: "push", name: "Published after webhook", value: duration(median(waits)), note: "median, 24 h: from the webhook's arrival to the event" },
    { key: "poll", name: "Detected by poll after", value: duration(median(polled.map(lateness))), note: "median, 24 h: from the job's completion, in whole seconds", path: "jobs?origin=poll&since=24h&sort=late" },
  ];
}

const tile = ({ name, value, note, path }) => h("div", {}, h("dt", {}, path ? h("a", { href: path }, name) : name), h("dd", {}, value, note ? h("small", {}, note) : null));
