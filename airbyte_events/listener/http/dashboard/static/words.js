// Times, numbers and states in words.

import { h, ticking, write } from "./dom.js";

export const STATUSES = ["pending", "queued", "running", "incomplete", "unknown", "succeeded", "failed", "cancelled"];
const ENDS = new Set(["succeeded", "failed", "cancelled"]);

/** @typedef {import("./api.js").Job} Job */

/** @type {(job: Job) => boolean} */
export const ended = (job) => ENDS.has(job.status);

/** 75 → "1 min 15 s" */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return "–";
  if (seconds === 0) return "0 s";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const [days, hours, minutes] = [Math.floor(whole / 86400), Math.floor((whole % 86400) / 3600), Math.floor((whole % 3600) / 60)];
  const both = (most, unit, least, next) => (least ? `${most} ${unit} ${least} ${next}` : `${most} ${unit}`);
  if (days) return both(days, "d", hours, "h");
  if (hours) return both(hours, "h", minutes, "min");
  return minutes ? both(minutes, "min", whole % 60, "s") : `${whole} s`;
}

/** When a job completed, else the latest time that is known of it. */
export const endOf = (/** @type {Job} */ job) => job.finished_at ?? job.started_at ?? job.observed_at;

/** How long a job took, or takes by now. */
export function seconds(/** @type {Job} */ job, now = Date.now()) {
  if (job.duration_seconds !== null && ended(job)) return job.duration_seconds;
  if (job.started_at === null) return null;
  const end = ended(job) ? (job.finished_at === null ? null : Date.parse(job.finished_at)) : now;
  return end === null ? null : Math.max(0, (end - Date.parse(job.started_at)) / 1000);
}

/** How long after its completion a job was detected, in seconds. Airbyte's times are whole seconds, so it is a second less or more. */
export function lateness(/** @type {Job} */ job) {
  if (!ended(job) || job.finished_at === null) return null;
  return Math.max(0, (Date.parse(job.observed_at) - Date.parse(job.finished_at)) / 1000);
}

const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const year = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", year: "numeric" });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const fine = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3 });
const whole = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });

/** A moment's day. */
export const dayOf = (moment) => (moment.getFullYear() === new Date().getFullYear() ? day : year).format(moment);

/** Its day and time; with `precise` to the millisecond, where it is known to that. */
export function date(moment, precise = false) {
  return `${dayOf(moment)}, ${(precise && moment.getMilliseconds() ? fine : clock).format(moment)}`;
}

/** A moment's time of day. */
export const timeOf = (moment) => clock.format(moment);

const exact = (moment) => `${whole.format(moment)}\n${moment.toISOString()}`;

/** A time for people, exact to the machine. */
export function when(text, precise = false) {
  if (!text) return "–";
  const moment = new Date(text);
  return h("time", { datetime: text, title: exact(moment) }, date(moment, precise));
}

/** How long ago that was, which is said anew as time passes. */
export function ago(text) {
  if (!text) return "–";
  const moment = new Date(text);
  const element = h("time", { datetime: text, title: exact(moment) });
  return ticking(element, () => write(element, past((Date.now() - moment.getTime()) / 1000)));
}

/** 75 → "1 min ago" */
function past(seconds) {
  if (seconds < 1) return "now";
  if (seconds >= 86_400) return `${Math.floor(seconds / 86_400)} d ago`;
  if (seconds >= 3600) return `${Math.floor(seconds / 3600)} h ago`;
  if (seconds >= 60) return `${Math.floor(seconds / 60)} min ago`;
  return `${Math.floor(seconds)} s ago`;
}

const grouped = new Intl.NumberFormat();
export const number = (value) => (value === null || value === undefined ? "–" : grouped.format(value));

/** 2, "job" → "2 jobs" */
export const plural = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;

/** 1536 → "1.5 KiB" */
export function bytes(value) {
  if (value === null || value === undefined) return "–";
  let [left, unit] = [value, 0];
  for (; left >= 1024 && unit < 4; unit += 1) left /= 1024;
  return `${unit ? left.toFixed(1) : left} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
}

/** Whether a duration is far beyond the usual one: twice as long, and more than a minute longer. */
export const farBeyond = (spent, usual) => usual !== null && spent !== null && spent > 2 * usual && spent > usual + 60;

const LATE = 120; // seconds, as in the alert AirbyteEventsLate

/** Whether a job's completion was detected more than two minutes after it. */
export const isLate = (/** @type {Job} */ job) => (lateness(job) ?? 0) > LATE;

export function median(values) {
  const sorted = values.filter((value) => value !== null).sort((a, b) => a - b);
  if (!sorted.length) return null;
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** The median time of a connection's last successes, in seconds. */
export const usualTime = (jobs) =>
  median(jobs.filter((job) => job.status === "succeeded").slice(0, 20).map((job) => seconds(job)));

export const ORIGINS = { webhook: "webhook", poll: "poll", submit: "on demand" };

/** @type {(job: Job) => string} */
export const nameOf = (job) => job.names?.connection ?? (job.connection_id ? `${job.connection_id.slice(0, 8)}…` : "unknown connection");
/** @type {(job: Job) => string} */
export const connectionKey = (job) => `${job.instance}/${job.connection_id}`;
/** @type {(job: {instance: string, job_id: number}) => string} */
export const idOf = (job) => `${job.instance}/${job.job_id}`;
/** @type {(job: {instance: string, job_id: number}) => string} */
export const jobPath = (job) => `jobs/${encodeURIComponent(job.instance)}/${job.job_id}`;
/** @type {(job: Job) => string} */
export const connectionPath = (job) =>
  `connections/${encodeURIComponent(job.instance)}/${encodeURIComponent(job.connection_id ?? "")}`;
