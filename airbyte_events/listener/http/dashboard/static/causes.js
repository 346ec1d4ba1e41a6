// Failures by cause: those whose messages differ in ids and numbers only.

import { connectionKey, endOf } from "./words.js";

/** @typedef {import("./api.js").Job} Job */
/** @typedef {{key: string, cause: string, jobs: Job[], connections: Job[]}} Group `jobs`, and one job of each connection, newest first. */

const READ = 1000; // characters of a message that are compared
const SHOWN = 160; // characters of a cause
const ID = /\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b|\b(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{8,}\b/gi;
const NUMBER = /\d+(?:[.,:/T+-]\d+)*Z?/g;

/** "Job 17 timed out after 3.5 s" → "Job … timed out after … s" */
export function normalised(message) {
  const text = message.slice(0, READ).replace(ID, "…").replace(NUMBER, "…").replace(/\s+/g, " ").trim();
  return text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text;
}

const causes = new WeakMap();

/** The cause of a failed job; "" for another job. */
export function causeOf(/** @type {Job} */ job) {
  if (job.status !== "failed") return "";
  const known = causes.get(job);
  if (known?.error === job.error) return known.cause;
  const cause = normalised(job.error?.message ?? "") || job.error?.type?.replaceAll("_", " ") || "no reason reported";
  causes.set(job, { error: job.error, cause });
  return cause;
}

/**
 * The failed jobs by cause, the most frequent cause first, then the latest.
 *
 * @param {Job[]} jobs the newest first
 * @returns {Group[]}
 */
export function byCause(jobs) {
  const found = new Map();
  for (const job of jobs) {
    const cause = causeOf(job);
    if (!cause) continue;
    if (!found.has(cause)) found.set(cause, { key: cause, cause, jobs: [], connections: new Map() });
    const group = found.get(cause);
    group.jobs.push(job);
    if (!group.connections.has(connectionKey(job))) group.connections.set(connectionKey(job), job);
  }
  return [...found.values()]
    .map((group) => ({ ...group, connections: [...group.connections.values()] }))
    .sort((a, b) => b.jobs.length - a.jobs.length || (endOf(a.jobs[0]) < endOf(b.jobs[0]) ? 1 : -1));
}
