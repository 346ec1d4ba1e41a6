import { h, patch, section, table } from "../dom.js";
import { ENDED_COLUMNS, connectionLink, jobLink, jobStamp, progress, reason, state, usualTime } from "../parts.js";
import { connectionKey, duration, ended, idOf, lateness, median, when } from "../words.js";

const SHOWN = 15;
const DAY = 86_400_000;

export function overview({ live }) {
  const tiles = h("dl", { class: "tiles" });
  const usual = new Map();
  const running = table(
    "Running jobs",
    [
      { title: "Job", cell: jobLink },
      { title: "State", cell: state },
      { title: "Connection", cell: connectionLink },
      { title: "Time, of the usual", cell: (job) => progress(job, usual.get(connectionKey(job)) ?? null) },
    ],
    { key: idOf, stamp: (job) => `${jobStamp(job)} ${Math.floor(Date.now() / 2000)}`, empty: "No job runs." },
  );
  const more = h("p", { class: "faint" });
  const ends = table("Latest ends", ENDED_COLUMNS, { key: idOf, stamp: jobStamp, empty: "No job has ended yet." });
  const failures = h("ul", { class: "failures" });
  const none = h("p", { class: "empty" }, "No failure is known.");
  const webhooks = table(
    "Webhooks by workspace",
    [
      { title: "Workspace", cell: (each) => each.name },
      { title: "Announced", cell: (each) => each.announced, class: "n" },
      { title: "Missed", cell: (each) => h("span", { class: each.missed ? "bad" : "" }, String(each.missed)), class: "n" },
      { title: "Last announced", cell: (each) => (each.last ? when(each.last, h) : "never") },
    ],
    { key: (each) => each.key, stamp: (each) => `${each.announced} ${each.missed} ${each.last}`, empty: "No sync has ended yet." },
  );
  const page = h(
    "div",
    {},
    h("h1", {}, "Overview"),
    tiles,
    section("Running", running.element, more),
    section("Latest ends", ends.element, h("p", {}, h("a", { href: "jobs" }, "All jobs"))),
    h("div", { class: "columns" }, section("Failures", failures, none), section("Webhooks", webhooks.element)),
  );
  return {
    title: "Overview",
    element: page,
    refresh: 2000,
    update() {
      const jobs = live.newest();
      const active = jobs.filter((job) => !ended(job));
      const done = jobs.filter(ended);
      for (const [key, each] of live.connections()) usual.set(key, usualTime(each));
      tiles.replaceChildren(...tilesOf(active, done, live.complete));
      const oldest = active.toReversed();
      running.update(oldest.slice(0, SHOWN));
      more.replaceChildren(...(active.length > SHOWN ? [h("a", { href: "jobs?active=yes" }, `All ${active.length} running jobs`)] : []));
      ends.update(done.slice(0, SHOWN));
      const failed = done.filter((job) => job.status === "failed").slice(0, 8);
      none.hidden = failed.length > 0;
      patch(failures, failed, idOf, jobStamp, failure);
      webhooks.update(byWorkspace(done));
    },
  };
}

const failure = (job) =>
  h("li", {}, "Job ", jobLink(job), " of ", connectionLink(job), ", ", when(job.finished_at ?? job.observed_at, h), h("div", {}, reason(job)));

function tilesOf(active, done, complete) {
  const since = Date.now() - DAY;
  const today = done.filter((job) => Date.parse(job.finished_at ?? job.observed_at) > since);
  const count = (status) => today.filter((job) => job.status === status).length;
  const late = (origin) => median(today.filter((job) => job.origin === origin).map(lateness));
  const pushed = today.filter((job) => job.origin === "webhook").length;
  const syncs = today.filter(announceable).length;
  const tile = (name, value, note) => h("div", {}, h("dt", {}, name), h("dd", {}, value, note ? h("small", {}, note) : null));
  return [
    tile("Running", String(active.length), complete ? "" : "reading the states …"),
    tile("Succeeded, 24 h", String(count("succeeded"))),
    tile("Failed, 24 h", String(count("failed")), count("cancelled") ? `and ${count("cancelled")} cancelled` : ""),
    tile("Learnt by push", syncs ? `${Math.round((100 * pushed) / syncs)} %` : "–", "of syncs that Airbyte announces, 24 h"),
    tile("Known after", duration(late("webhook")), "by push, median; webhooks tell whole seconds"),
    tile("Known after", duration(late("poll")), "by poll, median"),
  ];
}

const announceable = (job) => job.job_type === "sync" && (job.status === "succeeded" || job.status === "failed");

function byWorkspace(done) {
  const found = new Map();
  for (const job of done.filter(announceable)) {
    const key = `${job.instance}/${job.workspace_id ?? ""}`;
    const name = job.workspace_id ? `${job.names?.workspace ?? job.workspace_id} (${job.instance})` : `${job.instance}: connections that no webhook told of`;
    const each = found.get(key) ?? { key, name, announced: 0, missed: 0, last: null };
    if (job.origin === "webhook") {
      each.announced += 1;
      each.last ??= job.finished_at;
    } else each.missed += 1;
    found.set(key, each);
  }
  return [...found.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}
