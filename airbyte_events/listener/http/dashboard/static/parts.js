// Elements that several views share.

import { h, ticking, write } from "./dom.js";
import { ORIGINS, ago, bytes, connectionPath, duration, ended, jobPath, lateness, median, nameOf, number, seconds } from "./words.js";

export const state = (job) => h("span", { class: `state ${job.status}` }, job.status);

export const jobLink = (job) => h("a", { href: jobPath(job) }, `${job.instance === "default" ? "" : `${job.instance}/`}${job.job_id}`);

export const connectionLink = (job) =>
  job.connection_id ? h("a", { href: connectionPath(job) }, nameOf(job)) : h("span", { class: "faint" }, "not known yet");

/** 0.4 → "within 1 s", 75 → "after 1 min 15 s": the completion's time is known to the second only. */
export const afterCompletion = (late) => (late < 10 ? `within ${Math.max(1, Math.ceil(late))} s` : `after ${duration(late)}`);

/** What detected the completion, and how late. */
export function detected(job) {
  if (!ended(job)) return h("span", { class: "faint" }, "–");
  const late = lateness(job);
  return h("span", { class: job.origin === "poll" ? "odd" : "" }, ORIGINS[job.origin] ?? job.origin, late === null ? "" : ` ${afterCompletion(late)}`);
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
    if (bar) bar.value = Math.min(1, now / Math.max(usual, 0.001));
    write(spent, duration(Math.floor(now)));
    spent.className = over ? "odd" : "";
    write(of, usual === null ? ", no usual time yet" : over ? `, longer than the usual ${duration(usual)}` : ` of usual ${duration(usual)}`);
  });
}

const elapsed = (job) => {
  if (ended(job)) return duration(seconds(job));
  return ticking(h("span", {}), (element) => {
    const now = seconds(job);
    write(element, duration(now === null ? null : Math.floor(now)));
  });
};

/** The median time of a connection's last successes, in seconds. */
export const usualTime = (jobs) =>
  median(jobs.filter((job) => job.status === "succeeded").slice(0, 20).map((job) => seconds(job)));

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

/** The reason under what has failed, if one is known. */
export const why = (job) => (job.error ? h("div", { class: "why" }, reason(job)) : "");

export const jobStamp = (job) => `${job.observed_at} ${job.status} ${job.records} ${job.error?.message ?? ""} ${nameOf(job)}`;

export const JOB_COLUMNS = [
  { title: "Job", cell: jobLink },
  { title: "State", cell: state },
  { title: "Connection", cell: (job) => [connectionLink(job), why(job)], class: "long" },
  { title: "Type", cell: (job) => job.job_type ?? "–" },
  { title: "Completed", cell: (job) => (ended(job) ? ago(job.finished_at ?? job.observed_at) : h("span", { class: "faint" }, "running")) },
  { title: "Duration", cell: elapsed, class: "n" },
  { title: "Records", cell: (job) => number(job.records), class: "n" },
  { title: "Bytes", cell: (job) => bytes(job.bytes), class: "n" },
  { title: "Detected by", cell: detected, class: "tight" },
];
