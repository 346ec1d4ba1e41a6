// Requests to the listener. The session is a cookie that scripts can't read.

/**
 * A job's state, as `GET v1/jobs` returns it; times are RFC 3339.
 *
 * @typedef {object} Job
 * @property {string} instance
 * @property {number} job_id
 * @property {string} status
 * @property {string | null} connection_id
 * @property {string | null} workspace_id
 * @property {string | null} job_type
 * @property {string | null} started_at
 * @property {string | null} finished_at
 * @property {string} observed_at
 * @property {number | null} duration_seconds
 * @property {number | null} records
 * @property {number | null} bytes
 * @property {string} origin
 * @property {string | null} url
 * @property {string | undefined} task_url
 * @property {Receipt[] | undefined} receipts
 * @property {{connection?: string, source?: string, destination?: string, workspace?: string} | null} names
 * @property {{type?: string, origin?: string, message?: string, stream?: string, retryable?: boolean} | null} error
 * @property {number | undefined} attempts
 * @property {string[] | null} unconfirmed
 */

/**
 * A task that received the job's completion.
 *
 * @typedef {object} Receipt
 * @property {string | null} task_url
 * @property {string} waiting_since
 * @property {string} received_at
 */

/**
 * How far an active job is, as `GET v1/progress` returns it.
 *
 * @typedef {object} Progress
 * @property {string} instance
 * @property {number} job_id
 * @property {number | null} records
 * @property {number | null} bytes
 * @property {{name: string, namespace: string | null, records: number | null, bytes: number | null}[] | null} streams
 * @property {number} unchanged_seconds
 * @property {number | null} streams_unchanged_seconds
 * @property {string} observed_at
 * @property {{jobs: number, duration_seconds: number | null, records: number | null, bytes: number | null} | null} usual
 */

/**
 * What the listener concludes from the jobs of a connection, as `GET v1/signals` returns it.
 *
 * @typedef {object} Signal
 * @property {string} instance
 * @property {string | null} connection_id
 * @property {number | null} job_id
 * @property {string} signal
 * @property {string} message
 * @property {string} observed_at
 * @property {{connection?: string} | undefined} names
 */

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Hears `out` once what is asked for is refused for want of a session. */
export const door = new EventTarget();

/**
 * @param {string} path
 * @param {{method?: string, body?: unknown}} request
 * @returns {Promise<any>}
 */
async function ask(path, { method = "GET", body } = {}) {
  const headers = { Accept: "application/json" };
  // A page of another site can't send this without being let to, which it is not.
  if (method !== "GET") headers["X-Requested-With"] = "airbyte-events";
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), cache: "no-store" });
  } catch {
    throw new Refused(0, "The listener does not respond.");
  }
  const told = await answer.json().catch(() => ({}));
  if (answer.ok) return told;
  if (answer.status === 401 && path !== "session") door.dispatchEvent(new Event("out"));
  throw new Refused(answer.status, told.message ?? told.error ?? `The listener responded with status ${answer.status}.`);
}

const query = (values) => {
  const given = new URLSearchParams(Object.entries(values).filter(([, value]) => value !== null && value !== undefined && value !== ""));
  return given.size ? `?${given}` : "";
};

/** @type {(after: string | null) => EventSource} */
export const stream = (after) => new EventSource(`v1/events${query({ after })}`);
/** @type {(given: {token: string} | {code: string}) => Promise<any>} */
export const signIn = (given) => ask("session", { method: "POST", body: given });
export const signOut = () => ask("session", { method: "DELETE" });
export const session = () => ask("session");
/** @type {(filters: object) => Promise<{jobs: Job[], next: string | null, as_of: Record<string, string | null>}>} */
export const jobs = (filters) => ask(`v1/jobs${query(filters)}`);
/** @type {(instance: string, id: string) => Promise<{job: Job, history: {id: string, data: Job}[], notification: any}>} */
export const job = (instance, id) => ask(`v1/jobs/${encodeURIComponent(instance)}/${encodeURIComponent(id)}`);
/** @type {(instance: string, ids: (string | number)[], streams?: boolean) => Promise<{progress: Progress[]}>} */
export const progress = (instance, ids, streams = false) => ask(`v1/progress${query({ instance, job_id: ids.join(","), streams })}`);
/** @type {(filters: object) => Promise<{signals: Signal[], next: string | null}>} */
export const signals = (filters) => ask(`v1/signals${query(filters)}`);
export const notifications = (filters) => ask(`v1/notifications${query(filters)}`);
export const replay = (id) => ask(`v1/notifications/${id}/replay`, { method: "POST" });
/** @type {(job: Job) => Promise<{instance: string, job_id: number, how: string}>} */
export const retryJob = (job) => ask(`v1/jobs/${encodeURIComponent(job.instance)}/${job.job_id}/retry`, { method: "POST" });
/** @type {(job: Job) => Promise<{instance: string, job_id: number, how: string}>} */
export const cancelJob = (job) => ask(`v1/jobs/${encodeURIComponent(job.instance)}/${job.job_id}/cancel`, { method: "POST" });
/** @type {(id: number) => Promise<{body: string, truncated: boolean}>} */
export const notificationBody = (id) => ask(`v1/notifications/${id}/body`);
export const deliveries = (filters) => ask(`v1/deliveries${query(filters)}`);
export const retryDelivery = (id) => ask(`v1/deliveries/${id}/retry`, { method: "POST" });
export const status = () => ask("v1/status");
