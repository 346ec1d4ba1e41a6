// The jobs' states as the listener knows them: read once, then kept true by its feed.

import * as api from "./api.js";
import { connectionKey, ended, idOf } from "./words.js";

const PAGE = 1000;
export const MOST = 10_000; // jobs that are held, the newest of them

export class Live {
  jobs = new Map();
  #names = new Map();
  state = "connecting";
  complete = false;
  #watchers = new Set();
  #told = false;
  #source = null;

  /** `watcher` is called when something has changed, at most a few times a second. Returns how to stop that. */
  watch(watcher) {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  begin() {
    // The stream first, then the states: what happens in between is told by the one or the other.
    this.#source = new EventSource("v1/events");
    this.#source.addEventListener("hello", () => this.#become("live"));
    this.#source.addEventListener("job", (event) => this.#take([JSON.parse(event.data).data]));
    this.#source.addEventListener("reset", () => this.#load());
    this.#source.addEventListener("error", () => this.#become("reconnecting"));
    return this.#load();
  }

  end() {
    this.#source?.close();
    this.jobs.clear();
    this.complete = false;
  }

  async #load() {
    const active = await api.jobs({ terminal: "false", limit: PAGE });
    this.#take(active.jobs);
    let before = null;
    do {
      const page = await api.jobs({ limit: PAGE, before });
      this.#take(page.jobs);
      before = page.next;
    } while (before !== null && this.jobs.size < MOST && this.#source.readyState !== EventSource.CLOSED);
    this.complete = true;
    this.#tell();
  }

  #take(jobs) {
    for (const job of jobs) {
      const known = this.jobs.get(idOf(job));
      const newer = known === undefined || (ended(job) && !ended(known)) || (ended(job) === ended(known) && job.observed_at >= known.observed_at);
      if (newer) this.jobs.set(idOf(job), job);
      // Only webhooks bring names; they are those of the connection's other jobs, too.
      if (job.names?.connection) this.#names.set(connectionKey(job), { names: job.names, workspace_id: job.workspace_id, url: job.url });
    }
    for (const job of this.jobs.values()) this.name(job);
    this.#forget();
    this.#tell();
  }

  /** Give a job the names that another of its connection brought. */
  name(job) {
    const known = this.#names.get(connectionKey(job));
    if (known === undefined) return job;
    job.names ??= known.names;
    job.workspace_id ??= known.workspace_id;
    job.url ??= known.url;
    return job;
  }

  #forget() {
    // The first that were put in are the oldest but for the active ones.
    if (this.jobs.size <= MOST * 1.1) return;
    const oldest = this.newest().filter(ended).slice(MOST);
    for (const job of oldest) this.jobs.delete(idOf(job));
  }

  #become(state) {
    this.state = state;
    this.#tell();
  }

  #tell() {
    if (this.#told) return;
    this.#told = true;
    setTimeout(() => {
      this.#told = false;
      for (const watcher of this.#watchers) watcher();
    }, 150);
  }

  /** All jobs, the latest change first. */
  newest() {
    return [...this.jobs.values()].sort((a, b) => (at(a) < at(b) ? 1 : at(a) > at(b) ? -1 : b.job_id - a.job_id));
  }

  /** The connections, each with its jobs, the latest change first. */
  connections() {
    const found = new Map();
    for (const job of this.newest()) {
      const key = connectionKey(job);
      if (!found.has(key)) found.set(key, []);
      found.get(key).push(job);
    }
    return found;
  }
}

const at = (job) => job.finished_at ?? job.started_at ?? job.observed_at;
