// Why a completion came when it did: the steps from Airbyte's end of the job to the tasks, as far as they are recorded.

import { h, section, table, write } from "./dom.js";
import { afterCompletion, missedRemedy, taskLink } from "./parts.js";
import { announceable, published } from "./webhooks.js";
import { date, duration, ended, when } from "./words.js";

/** @typedef {import("./api.js").Job} Job */
/** @typedef {{key: string, name: string, at: string, why: string, from: number, took: number | null, receipt?: import("./api.js").Receipt, wait?: string}} Step */

const DETECTED = {
  webhook: ["Confirmed by the API", "The API responded late, or did not confirm the webhook at first."],
  poll: ["Detected by a poll", "No webhook had arrived. The poll interval is on the page System."],
  submit: ["Read on demand", "A client asked for the job after it had completed."],
};

/**
 * The steps in order of time; none for a job that has not completed.
 *
 * @returns {Step[]}
 */
export function stepsOf(/** @type {Job} */ job, notification) {
  if (!ended(job) || job.finished_at === null) return [];
  const [name, why] = DETECTED[job.origin] ?? [job.origin, ""];
  const steps = [
    { key: "completed", name: "Completed in Airbyte", at: job.finished_at, why: "" },
    { key: "detected", name, at: job.observed_at, why },
  ];
  if (notification) steps.push({ key: "webhook", name: "Webhook received", at: notification.received_at, why: "Airbyte sent the webhook late, or its clock differs." });
  if (published(job, notification) !== null) steps.push({ key: "published", name: "Published", at: notification.settled_at, why: "The store was slow." });
  steps.sort((a, b) => Date.parse(a.at) - Date.parse(b.at));
  const start = Date.parse(steps[0].at);
  const since = (/** @type {string} */ at) => (Date.parse(at) - start) / 1000;
  const found = steps.map((step, i) => ({ ...step, from: i ? since(steps[i - 1].at) : 0, took: i ? since(step.at) - since(steps[i - 1].at) : null }));
  const known = Math.max(...steps.filter((step) => step.key === "detected" || step.key === "published").map((step) => since(step.at)));
  return [...found, ...(job.receipts ?? []).map((receipt, i) => receiptStep(receipt, i, known, since))];
}

/** A task's receipt: it takes its time from the publication, or from when the task began to wait. */
function receiptStep(receipt, i, published, since) {
  const [began, received] = [since(receipt.waiting_since), since(receipt.received_at)];
  const from = Math.min(Math.max(published, began), received);
  return { key: `receipt-${i}`, name: "Received by a task", at: receipt.received_at, why: "", from: Math.max(0, from), took: received - from, receipt, wait: received < published ? "before" : began > published ? "after" : "" };
}

/** A part of the job's page: `update(job, notification)`. */
export function waterfall() {
  const summary = h("p", {});
  const missed = h("p", { hidden: true });
  let total = 0;
  const list = table(
    "Steps",
    [
      { title: "Step", cell: (step) => (step.receipt ? receiptName(step) : step.name), class: "long" },
      { title: "Time", cell: (step) => h("time", { datetime: step.at }, date(new Date(step.at), true)), class: "tight" },
      { title: "After the step before", cell: (step) => (step.took === null ? "–" : length(step)), class: "n" },
      { title: "Share", cell: (step) => bar(step, total), class: "long share" },
    ],
    { key: (step) => step.key, stamp: (step) => `${JSON.stringify(step)} ${total}`, empty: "Not completed." },
  );
  const unreceived = h("p", { class: "faint", hidden: true }, "No task has reported that it received the completion.");
  const element = section("From completion to task", summary, list.element, unreceived, missed);
  return {
    element,
    update(job, notification) {
      const steps = stepsOf(job, notification);
      element.hidden = steps.length === 0;
      if (!steps.length) return;
      total = Math.max(...steps.map((step) => step.from + (step.took ?? 0)));
      const until = steps.filter((step) => step.key === "detected" || step.key === "published");
      const late = until.reduce((most, step) => Math.max(most, step.from + (step.took ?? 0)), 0);
      const longest = steps.slice(1).filter((step) => !step.receipt).reduce((a, b) => ((b.took ?? 0) > (a.took ?? 0) ? b : a));
      const why = late >= 10 && (longest.took ?? 0) > late / 2 ? ` Longest step: ${longest.name}, ${duration(longest.took)}. ${longest.why}` : "";
      write(summary, `Time from the completion, which Airbyte reports in whole seconds, to the publication: ${late < 10 ? afterCompletion(late) : duration(late)}.${why}${receiptSummary(steps)}`);
      unreceived.hidden = !job.task_url || steps.some((step) => step.receipt);
      list.update(steps);
      // A webhook that detected the completion may no longer be stored.
      missed.hidden = notification !== null || job.origin === "webhook" || !announceable(job);
      if (!missed.hidden) missed.replaceChildren("No webhook of this job is in the inbox. ", ...missedRemedy(job.instance));
    },
  };
}

const receiptName = ({ receipt, wait }) => [
  "Received by ",
  taskLink(receipt.task_url) ?? "a task",
  wait === "after" ? h("div", { class: "faint" }, "The task began to wait after the publication: ", when(receipt.waiting_since, true)) : null,
  wait === "before" ? h("div", { class: "faint" }, "Before the publication: the task polls Airbyte itself.") : null,
];

/** How long the publication took to reach the tasks that were waiting. */
function receiptSummary(/** @type {Step[]} */ steps) {
  const waited = steps.filter((step) => step.receipt && !step.wait).map((step) => step.took ?? 0);
  if (!waited.length) return "";
  const most = Math.max(...waited);
  const who = waited.length === 1 ? "The task received it" : `${waited.length} tasks received it, the last one`;
  return ` ${who} ${duration(most)} after that.${most < 10 ? "" : " It polls, or its connection to the listener was interrupted, or its triggerer was busy."}`;
}

/** A completion's time is cut off to the second, so what follows it is known to the second only. */
const length = (step) => (step.from === 0 && step.took < 10 ? `within ${Math.max(1, Math.ceil(step.took))} s` : duration(step.took));

function bar(step, total) {
  const svg = h("svg", { class: "span", viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" });
  if (step.took !== null && total > 0) svg.append(h("rect", { class: `step-${step.receipt ? "receipt" : step.key}`, x: Math.min(99, (100 * step.from) / total), y: 0, width: Math.max(1, (100 * step.took) / total), height: 8 }));
  return svg;
}
