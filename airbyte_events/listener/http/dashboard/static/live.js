// The jobs' states as the listener knows them: read once, then kept true by its feed.

import * as api from "./api.js";
import { connectionKey, endOf, ended, idOf, usualTime } from "./words.js";

const PAGE = 1000;
const MOST = 10_000; // jobs that are held, the newest of them
const [SHORTEST, LONGEST] = [1_000, 15_000]; // milliseconds before it is tried again
const SILENCE = 45_000; // milliseconds: three of the heartbeats that a stream tells
const PATIENCE = 5_000; // milliseconds for which a tab is hidden before it stops to follow

export class Live {
  /** @type {Map<string, api.Job>} */
  jobs = new Map();
  state = "connecting";
  complete = false; // all that can be held was read
  heardAt = Date.now(); // when the stream said something for the last time
  /** @type {Record<string, string | null>} */
  asOf = {}; // when each Airbyte was last polled: all earlier changes are known
  trouble = ""; // why the states can't be read, if so
  /** @type {Map<string, api.Job>} */
  #names = new Map();
  #watchers = new Set();
  #told = false;
  /** @type {symbol | null} */
  #began = null;
  /** @type {EventSource | null} */
  #source = null;
  /** @type {string | null} */
  #cursor = null;
  #blind = false; // something may have happened since the states were read
  /** @type {number | undefined} */
  #silence;
  #wait = SHORTEST;
  #seen = new Set(); // of the reading that is under way, or was the last
  /** @type {api.Job[] | null} */
  #newest = null;
  /** @type {Map<string, api.Job[]> | null} */
  #connections = null;
  /** @type {Map<string, number | null>} */
  #usual = new Map();

  /** `watcher` is called when something has changed, at most a few times a second. */
  watch(watcher) {
    this.#watchers.add(watcher);
  }

  async begin() {
    const began = Symbol("begun");
    this.#began = began;
    await onceSeen();
    if (began !== this.#began) return;
    // The stream first, then the states: what happens in between is told by the one or the other.
    this.#open();
    await this.#load();
  }

  end() {
    this.#began = null;
    this.#close();
    this.#cursor = null;
    this.#blind = false;
    this.#seen = new Set();
    this.jobs.clear();
    this.complete = false;
    this.#changed();
  }

  /** Browsers have six connections to a host for all of its tabs: one that nobody looks at gives its own back. */
  async #rest(source) {
    while (source === this.#source) {
      await onceHidden();
      await new Promise((resolve) => setTimeout(resolve, PATIENCE));
      if (!document.hidden) continue;
      if (source !== this.#source) return;
      this.#close();
      this.#become("paused");
      const began = this.#began;
      await onceSeen();
      if (began === this.#began && this.#source === null) this.#open();
    }
  }

  #close() {
    clearTimeout(this.#silence);
    this.#source?.close();
    this.#source = null;
    this.#blind ||= this.#cursor === null;
  }

  /** Streams say something every so often: one that is silent may be dead, or held back on its way. */
  #heard() {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => {
      this.#close();
      this.#become("reconnecting");
      this.#open();
      this.#load();
    }, SILENCE);
  }

  #open() {
    const source = api.stream(this.#cursor);
    const follow = (name, act) =>
      source.addEventListener(name, (event) => {
        if (source !== this.#source) return;
        if (event.lastEventId) this.#cursor = event.lastEventId;
        this.heardAt = Date.now();
        this.#heard();
        act(event);
      });
    this.#source = source;
    this.#rest(source);
    this.#heard();
    follow("hello", () => {
      this.#wait = SHORTEST;
      this.#become("live");
      if (this.#blind) this.#load();
      this.#blind = false;
    });
    follow("job", (event) => this.#take([JSON.parse(event.data).data]));
    follow("bookmark", () => {});
    follow("reset", () => this.#load());
    source.addEventListener("error", () => {
      if (source !== this.#source) return;
      this.#become("reconnecting");
      this.#blind ||= this.#cursor === null;
      // The browser comes again by itself where the connection broke. It does not after an answer such as a proxy's 502.
      if (source.readyState === EventSource.CLOSED) this.#reopen(source);
    });
  }

  async #reopen(source) {
    await this.#pause();
    if (source !== this.#source) return;
    const { signed_in: known } = await api.session().catch(() => ({ signed_in: true }));
    if (source !== this.#source) return;
    if (known) this.#open();
    else api.door.dispatchEvent(new Event("out"));
  }

  async #pause() {
    const wait = this.#wait;
    this.#wait = Math.min(2 * wait, LONGEST);
    await new Promise((resolve) => setTimeout(resolve, wait * (0.75 + Math.random() / 2)));
  }

  /** Read the states; those that are not known any more, as after another store was put in place, are forgotten. */
  async #load() {
    const seen = new Set();
    this.#seen = seen;
    while (seen === this.#seen) {
      try {
        await this.#read(seen);
        this.trouble = "";
        return;
      } catch (error) {
        if (seen !== this.#seen || error.status === 401) return;
        this.trouble = `${error.message} Trying again …`;
        this.#tell();
        await this.#pause();
      }
    }
  }

  async #read(seen) {
    const take = (page) => seen === this.#seen && this.#take(page.jobs);
    take(await api.jobs({ terminal: "false", limit: PAGE }));
    /** @type {string | null} */
    let before = null;
    do {
      const page = await api.jobs({ limit: PAGE, before });
      take(page);
      if (before === null && seen === this.#seen) this.asOf = page.as_of;
      before = page.next;
    } while (before !== null && seen === this.#seen && seen.size < MOST);
    if (seen !== this.#seen) return;
    for (const id of this.jobs.keys()) if (!seen.has(id)) this.jobs.delete(id);
    this.complete = true;
    this.#changed();
  }

  /** Read how fresh the states are. */
  async refresh() {
    const began = this.#began;
    try {
      const { as_of: asOf } = await api.jobs({ limit: 1 });
      if (began !== this.#began) return;
      this.asOf = asOf;
      this.#tell();
    } catch {
      // The stream reports that the listener does not respond.
    }
  }

  #take(/** @type {api.Job[]} */ jobs) {
    const named = new Set();
    for (const job of jobs) {
      const [id, connection] = [idOf(job), connectionKey(job)];
      this.#seen.add(id);
      const known = this.jobs.get(id);
      const newer = known === undefined || (ended(job) && !ended(known)) || (ended(job) === ended(known) && job.observed_at >= known.observed_at);
      if (newer) this.jobs.set(id, job);
      // Only webhooks bring names; they are those of the connection's other jobs, too.
      if (job.names?.connection && (this.#names.get(connection)?.observed_at ?? "") <= job.observed_at) {
        if (!this.#names.has(connection)) named.add(connection);
        this.#names.set(connection, job);
      } else this.name(job);
    }
    if (named.size) for (const job of this.jobs.values()) if (named.has(connectionKey(job))) this.name(job);
    this.#forget();
    this.#changed();
  }

  /** Give a job the names that another of its connection brought. */
  name(/** @type {api.Job} */ job) {
    const known = this.#names.get(connectionKey(job));
    if (known === undefined) return job;
    job.names ??= known.names;
    job.workspace_id ??= known.workspace_id;
    job.url ??= known.url;
    return job;
  }

  #forget() {
    if (this.jobs.size <= MOST * 1.1) return;
    this.#newest = null;
    const oldest = this.newest().filter(ended).slice(MOST);
    for (const job of oldest) this.jobs.delete(idOf(job));
  }

  #become(state) {
    this.state = state;
    this.#tell();
  }

  #changed() {
    this.#newest = this.#connections = null;
    this.#usual.clear();
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
    this.#newest ??= [...this.jobs.values()].sort((a, b) => (endOf(a) < endOf(b) ? 1 : endOf(a) > endOf(b) ? -1 : b.job_id - a.job_id));
    return this.#newest;
  }

  /** The connections, each with its jobs, the latest change first. */
  connections() {
    if (this.#connections !== null) return this.#connections;
    /** @type {Map<string, api.Job[]>} */
    const found = new Map();
    this.#connections = found;
    for (const job of this.newest()) {
      const key = connectionKey(job);
      const jobs = found.get(key);
      if (jobs === undefined) found.set(key, [job]);
      else jobs.push(job);
    }
    return found;
  }

  /** The median time of a connection's last successes, in seconds; null where there is none. */
  usual(/** @type {api.Job} */ job) {
    const key = connectionKey(job);
    const known = this.#usual.get(key);
    if (known !== undefined) return known;
    const usual = usualTime(this.connections().get(key) ?? []);
    this.#usual.set(key, usual);
    return usual;
  }
}

/** @type {(hidden: boolean) => Promise<void>} */
const until = (hidden) =>
  new Promise((resolve) => {
    const look = () => {
      if (document.hidden !== hidden) return;
      document.removeEventListener("visibilitychange", look);
      resolve();
    };
    document.addEventListener("visibilitychange", look);
    look();
  });
const onceSeen = () => until(false);
const onceHidden = () => until(true);
