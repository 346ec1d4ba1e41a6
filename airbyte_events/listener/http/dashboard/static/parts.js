// Elements that several views share.

import { h, patch, ticking, write } from "./dom.js";
import { ORIGINS, ago, bytes, connectionPath, duration, ended, farBeyond, isLate, jobPath, lateness, nameOf, number, plural, seconds, timeOf } from "./words.js";

export const state = (job) => h("span", { class: `state ${job.status}` }, job.status);

export const jobLink = (job) => h("a", { href: jobPath(job) }, `${job.instance === "default" ? "" : `${job.instance}/`}${job.job_id}`);

export const connectionLink = (job) =>
  job.connection_id ? h("a", { href: connectionPath(job), class: "name" }, nameOf(job)) : h("span", { class: "faint" }, "not known yet");

/** 0.4 → "within 1 s", 75 → "after 1 min 15 s": the completion's time is known to the second only. */
export const afterCompletion = (late) => (late < 10 ? `within ${Math.max(1, Math.ceil(late))} s` : `after ${duration(late)}`);

const TASK = /\/dags\/([^/]+)\/runs\/[^/]+\/tasks\/([^/]+)(?:\/mapped\/(\d+))?$/;

/** The task in Airflow, null without a link; the host is shown, as any client of the listener may give the link. */
export function taskLink(/** @type {string | null | undefined} */ url) {
  if (!url || !/^https?:/.test(url) || !URL.canParse(url)) return null;
  const { host, pathname } = new URL(url);
  const [, dag, task, index] = TASK.exec(pathname) ?? [];
  const name = dag ? `: ${decoded(dag)} / ${decoded(task)}${index ? ` [${index}]` : ""}` : "";
  return [h("a", { href: url, rel: "noreferrer" }, `Task run${name}`), h("span", { class: "faint" }, ` at ${host}`)];
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // half a letter
  }
}

/** What detected the completion, and how late. */
export function detected(job) {
  if (!ended(job)) return h("span", { class: "faint" }, "–");
  const late = lateness(job);
  return h("span", { class: isLate(job) ? "bad" : job.origin === "poll" ? "odd" : "" }, ORIGINS[job.origin] ?? job.origin, late === null ? "" : ` ${afterCompletion(late)}`);
}

/** Elapsed time against the usual one. */
export function progress(job, usual) {
  if (seconds(job) === null) return h("span", { class: "faint" }, "not started");
  const bar = usual === null ? null : h("progress", { max: 1, "aria-label": `Job ${job.job_id}: elapsed of usual time` });
  const spent = h("span", {});
  const of = h("span", { class: "faint" });
  return ticking(h("span", { class: "progress" }, bar, h("span", {}, spent, of)), () => {
    const now = seconds(job) ?? 0;
    const over = usual !== null && now > usual;
    const far = farBeyond(now, usual);
    if (bar) bar.value = Math.min(1, now / Math.max(usual, 0.001));
    write(spent, duration(Math.floor(now)));
    spent.className = far ? "bad" : over ? "odd" : "";
    write(of, usual === null ? ", no usual time yet" : over ? `, ${far ? "far beyond" : "longer than"} the usual ${duration(usual)}` : ` of usual ${duration(usual)}`);
  });
}

/** Records so far against the usual number, or bytes where Airbyte counts no records. */
export function volume(/** @type {import("./api.js").Progress | null | undefined} */ moved) {
  if (!moved || (moved.records ?? moved.bytes) === null) return h("span", { class: "faint" }, "–");
  const [now, usual, shown] = moved.records === null ? [moved.bytes, moved.usual?.bytes, bytes] : [moved.records, moved.usual?.records, number];
  const unit = moved.records === null ? "" : " records";
  const bar = usual ? h("progress", { max: 1, value: Math.min(1, (now ?? 0) / usual), "aria-label": `Job ${moved.job_id}: volume so far of usual volume` }) : null;
  const of = usual ? ` of usual ${shown(usual)}` : "";
  return h("span", { class: "progress" }, bar, h("span", {}, `${shown(now)}${unit}`, h("span", { class: "faint" }, of)));
}

/** What changes when progress does. */
export const volumeStamp = (moved) => (moved ? `${moved.records} ${moved.bytes} ${moved.usual?.records} ${moved.usual?.bytes}` : "");

/** How long a job took or takes; red where that is far beyond the usual time. */
const elapsed = (job, usual) => {
  const spent = h("span", {});
  const beyond = h("span", { class: "bad" });
  const draw = () => {
    const now = seconds(job);
    const far = farBeyond(now, usual);
    write(spent, duration(now === null || ended(job) ? now : Math.floor(now)));
    spent.className = far ? "bad" : "";
    write(beyond, far ? `, usually ${duration(usual)}` : "");
  };
  if (ended(job)) draw();
  return ended(job) ? [spent, beyond] : ticking(h("span", {}, spent, beyond), draw);
};

/** Why a job failed, in Airbyte's words. */
export function reason({ error, status, attempts }) {
  if (!error) return h("span", { class: "faint" }, status === "failed" ? "no reason reported" : "");
  const words = [error.type, error.origin].filter(Boolean).map((each) => each.replaceAll("_", " "));
  if (error.stream) words.push(error.stream);
  if (attempts && attempts > 1) words.push(`${attempts} attempts`);
  if (error.retryable === false) words.push("a retry will not help");
  const kind = words.map((each) => ` · ${each}`);
  return h("span", { class: "reason" }, error.message ?? "no message", h("span", { class: "faint" }, kind));
}

/** What to do about syncs that completed without a webhook. */
export const missedRemedy = (instance) => {
  const which = instance === "default" ? "" : ` --instance ${instance}`;
  return ["Run ", h("code", {}, `airbyte-events webhooks status${which}`), "; if a webhook is missing, ", h("code", {}, `airbyte-events webhooks install${which}`), "."];
};

/** The reason under what has failed, if one is known. */
export const why = (job) => (job.error ? h("div", { class: "why" }, reason(job)) : "");

export const jobStamp = (job) => `${job.observed_at} ${job.status} ${job.records} ${job.error?.message ?? ""} ${nameOf(job)}`;

/** What a row of `jobColumns` depends on. */
export const rowStamp = (live) => (job) => `${jobStamp(job)} ${ended(job) ? farBeyond(seconds(job), live.usual(job)) : live.usual(job)}`;

/** The columns of a list of jobs; `sort` names the order in which a column's heading puts the list. */
export const jobColumns = (live) => [
  { title: "Job", cell: jobLink },
  { title: "State", cell: state, sort: "failures" },
  { title: "Connection", cell: (job) => [connectionLink(job), why(job)], class: "long" },
  { title: "Type", cell: (job) => job.job_type ?? "–" },
  { title: "Completed", cell: (job) => (ended(job) ? ago(job.finished_at ?? job.observed_at) : h("span", { class: "faint" }, "running")), sort: "oldest" },
  { title: "Duration", cell: (job) => elapsed(job, live.usual(job)), class: "n", sort: "duration" },
  { title: "Records", cell: (job) => number(job.records), class: "n", sort: "records" },
  { title: "Bytes", cell: (job) => bytes(job.bytes), class: "n", sort: "bytes" },
  { title: "Detected by", cell: detected, class: "tight", sort: "late" },
];

const NAMED = 3;

/** Fill a list with groups of failures; `path` is the page of a group's jobs, `others` how many groups are left out. */
export function causes(list, groups, path, others = 0) {
  const items = [...groups, ...(others > 0 ? [{ key: "others", jobs: [], others }] : [])];
  const stamp = (group) => `${group.others ?? ""} ${group.jobs.length} ${group.jobs.length ? `${jobStamp(group.jobs[0])} ${path(group)}` : ""}`;
  patch(list, items, (group) => group.key, stamp, (group) => (group.others ? h("li", { class: "faint" }, `and ${plural(group.others, "other cause")}`) : failuresOf(group, path(group))));
}

function failuresOf({ cause, jobs, connections }, path) {
  const [newest] = jobs;
  const others = connections.length - NAMED;
  return h(
    "li",
    {},
    h("a", { href: path }, plural(jobs.length, "failure")),
    " of ",
    connections.slice(0, NAMED).map((job, i) => [i ? ", " : "", connectionLink(job)]),
    others > 0 ? ` and ${plural(others, "other connection")}` : "",
    ", last: job ",
    jobLink(newest),
    ", ",
    ago(newest.finished_at ?? newest.observed_at),
    h("div", { class: "reason" }, jobs.length === 1 ? reason(newest) : [cause, newest.error?.origin ? h("span", { class: "faint" }, ` · ${newest.error.origin}`) : ""]),
  );
}

/** When what is shown was read, where it is not live: `mark()` says that it was read now. */
export function asOf() {
  const element = h("p", { class: "faint" });
  return { element, mark: () => write(element, `As of ${timeOf(Date.now())}`) };
}
