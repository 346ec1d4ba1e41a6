// What several pages show in the same way.

import { h } from "./dom.js";
import { ORIGINS, bytes, connectionPath, duration, ended, jobPath, lateness, median, nameOf, number, seconds, when } from "./words.js";

export const state = (job) => h("span", { class: `state ${job.status}` }, job.status);

export const jobLink = (job) => h("a", { href: jobPath(job) }, `${job.instance === "default" ? "" : `${job.instance}/`}${job.job_id}`);

export const connectionLink = (job) =>
  job.connection_id ? h("a", { href: connectionPath(job) }, nameOf(job)) : h("span", { class: "faint" }, "not known yet");

/** How the end was learnt and how late. */
export function learnt(job) {
  if (!ended(job)) return h("span", { class: "faint" }, "–");
  const late = lateness(job);
  return h("span", { class: job.origin === "poll" ? "odd" : "" }, ORIGINS[job.origin] ?? job.origin, late === null ? "" : ` after ${duration(late)}`);
}

/** Elapsed time against the usual one. */
export function progress(job, usual) {
  const spent = seconds(job);
  if (spent === null) return h("span", { class: "faint" }, "not started");
  if (usual === null) return h("span", {}, duration(spent), h("span", { class: "faint" }, ", usual time not known yet"));
  const over = spent > usual;
  return h(
    "span",
    {},
    h("progress", { max: 1, value: Math.min(1, spent / usual).toFixed(3), "aria-label": `Job ${job.job_id}: elapsed of usual time` }),
    " ",
    h("span", { class: over ? "odd" : "" }, duration(spent)),
    h("span", { class: "faint" }, ` of ${duration(usual)}`),
  );
}

/** The median time of a connection's last successes, in seconds. */
export const usualTime = (jobs) =>
  median(jobs.filter((job) => job.status === "succeeded").slice(0, 20).map((job) => seconds(job)));

/** Why a job failed, in Airbyte's words. */
export function reason({ error, status }) {
  if (!error) return h("span", { class: "faint" }, status === "failed" ? "no reason was told" : "");
  const kind = [error.type, error.origin].filter(Boolean).map((each) => ` · ${each}`);
  return h("span", { class: "reason" }, error.message ?? "no message", h("span", { class: "faint" }, kind));
}

export const jobStamp = (job) => `${job.observed_at} ${job.status} ${job.records} ${job.error?.message ?? ""} ${nameOf(job)}`;

export const ENDED_COLUMNS = [
  { title: "Job", cell: jobLink },
  { title: "State", cell: state },
  { title: "Connection", cell: connectionLink },
  { title: "Type", cell: (job) => job.job_type ?? "–", class: "wide" },
  { title: "Ended", cell: (job) => (ended(job) ? when(job.finished_at ?? job.observed_at, h) : h("span", { class: "faint" }, "runs")) },
  { title: "Took", cell: (job) => duration(seconds(job)), class: "n" },
  { title: "Records", cell: (job) => number(job.records), class: "n wide" },
  { title: "Bytes", cell: (job) => bytes(job.bytes), class: "n wide" },
  { title: "Learnt by", cell: learnt, class: "wide tight" },
];
