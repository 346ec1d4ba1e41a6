// Jobs as a CSV file (RFC 4180) for spreadsheets.

import { causeOf } from "./causes.js";
import { ORIGINS, ended, lateness, seconds } from "./words.js";

/** @typedef {import("./api.js").Job} Job */

/** @type {[string, (job: Job) => unknown][]} */
const FIELDS = [
  ["instance", (job) => job.instance],
  ["job_id", (job) => job.job_id],
  ["status", (job) => job.status],
  ["connection_id", (job) => job.connection_id],
  ["connection", (job) => job.names?.connection],
  ["source", (job) => job.names?.source],
  ["destination", (job) => job.names?.destination],
  ["workspace", (job) => job.names?.workspace ?? job.workspace_id],
  ["job_type", (job) => job.job_type],
  ["started_at", (job) => job.started_at],
  ["finished_at", (job) => job.finished_at],
  ["duration_seconds", (job) => (ended(job) ? seconds(job) : null)],
  ["records", (job) => job.records],
  ["bytes", (job) => job.bytes],
  ["detected_by", (job) => ORIGINS[job.origin] ?? job.origin],
  ["detected_at", (job) => job.observed_at],
  ["detected_after_seconds", (job) => lateness(job)],
  ["cause", causeOf],
  ["error", (job) => job.error?.message],
  ["error_type", (job) => job.error?.type],
  ["error_origin", (job) => job.error?.origin],
];

/** A cell. Spreadsheets run a text that begins like a formula; an apostrophe in front makes it a text (OWASP, CSV injection). */
export function cell(value) {
  const text = String(value ?? "").replaceAll("\0", "");
  const safe = /^\s*[=+\-@\t\r\n＝＋－＠]/.test(text) ? `'${text}` : text;
  return `"${safe.replaceAll('"', '""')}"`;
}

/** @type {(jobs: Job[]) => string} */
export const csvOf = (jobs) => [FIELDS.map(([name]) => cell(name)), ...jobs.map((job) => FIELDS.map(([, of]) => cell(of(job))))].map((row) => `${row.join(",")}\r\n`).join("");

/** Have the browser save a text as a file. The mark in front tells Excel that it is UTF-8. */
export function save(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv;charset=utf-8" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
