// How webhooks do: what came of the last day's ends, told from the inbox.

import * as api from "./api.js";
import { ended } from "./words.js";

const PAGE = 1000;
const PAGES = 10;
export const DAY = 86_400_000;
const AGAIN = 60_000;
/** The outcomes of notifications that could have reported a completion, and that the API did not confirm. */
export const NOT_CONFIRMED = new Set(["unconfirmed", "unknown_job", "rejected"]);

/** The notifications of the last day: `items` by id, and whether all of that day's are among them. */
export class Inbox {
  items = new Map();
  complete = false;
  trouble = "";

  /** Read what has come since. */
  async read() {
    try {
      const since = new Date(Date.now() - DAY).toISOString();
      const newest = Math.max(0, ...this.items.keys());
      let before = null;
      let reached = false;
      for (let i = 0; i < PAGES && !reached; i += 1) {
        const page = await api.notifications({ limit: this.complete ? 100 : PAGE, before });
        for (const item of page.notifications) this.items.set(item.id, item);
        const last = page.notifications.at(-1);
        before = page.next;
        reached = before === null || last.received_at < since || (this.complete && last.id <= newest);
      }
      this.complete = reached;
      for (const item of this.items.values()) if (item.received_at < since) this.items.delete(item.id);
      this.trouble = "";
    } catch (error) {
      this.trouble = error.message;
    }
  }
}

/**
 * The seconds from a webhook's arrival to the publication of the completion that it reported; null if a poll detected it,
 * or the webhook was confirmed again later.
 */
export function published(job, notification) {
  if (job?.origin !== "webhook" || notification?.outcome !== "confirmed" || !notification.settled_at) return null;
  const settled = Date.parse(notification.settled_at);
  return settled - Date.parse(job.observed_at) > AGAIN ? null : Math.max(0, settled - Date.parse(notification.received_at)) / 1000;
}

export const announceable = (job) => job.job_type === "sync" && (job.status === "succeeded" || job.status === "failed");

/**
 * By workspace: the syncs that ended in the last day and were announced or missed, and the notifications that were
 * not confirmed because the API said otherwise or nobody can read them. `jobs` are those that are known, by instance and id.
 */
export function health(jobs, notifications) {
  const found = new Map();
  const since = Date.now() - DAY;
  const of = (instance, job) => {
    const workspace = job?.workspace_id ?? null;
    const key = `${instance}/${workspace ?? ""}`;
    if (!found.has(key)) found.set(key, { key, instance, workspace: job?.names?.workspace ?? workspace, announced: 0, missed: 0, notConfirmed: 0, last: null });
    return found.get(key);
  };
  const told = new Set();
  for (const each of notifications.values()) {
    const id = `${each.instance}/${each.job_id}`;
    const job = jobs.get(id);
    if (NOT_CONFIRMED.has(each.outcome)) of(each.instance, job).notConfirmed += 1;
    else if (each.kind === "success" || each.kind === "failure") {
      told.add(id);
      const workspace = of(each.instance, job);
      if (workspace.last === null || each.received_at > workspace.last) workspace.last = each.received_at;
    }
  }
  for (const [id, job] of jobs) {
    if (!ended(job) || !announceable(job) || Date.parse(job.finished_at ?? job.observed_at) < since) continue;
    of(job.instance, job)[job.origin === "webhook" || told.has(id) ? "announced" : "missed"] += 1;
  }
  return [...found.values()].sort((a, b) => (a.key < b.key ? -1 : 1));
}
