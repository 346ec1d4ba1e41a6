// What an operator token may do with a job, after a confirmation, and the webhook's body.

import * as api from "./api.js";
import { h, patch, section } from "./dom.js";
import { ended, jobPath, nameOf } from "./words.js";

/** @typedef {import("./api.js").Job} Job */

/** Ask before something is done: resolves to whether it shall be. The dialog has the focus, and Escape says no. */
function confirmed(title, text, yes) {
  return new Promise((resolve) => {
    const dialog = h(
      "dialog",
      { "aria-labelledby": "confirm-title", onclose: () => leave() },
      h("h2", { id: "confirm-title" }, title),
      h("p", {}, text),
      h("div", { class: "buttons" }, h("button", { type: "button", onclick: () => dialog.close("yes") }, yes), h("button", { type: "button", autofocus: true, onclick: () => dialog.close() }, "Back")),
    );
    function leave() {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    }
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** The buttons of a job's page: `update(job, operator)`. */
export function actions() {
  const buttons = h("div", { class: "buttons" });
  const result = h("p", { role: "status" });
  const alarm = h("p", { class: "alarm", role: "alert", hidden: true });

  async function act(button, ask, work) {
    if (!(await confirmed(...ask))) return;
    button.disabled = true;
    alarm.hidden = true;
    result.replaceChildren("Waiting for Airbyte …");
    try {
      result.replaceChildren(...(await work()));
    } catch (error) {
      result.replaceChildren();
      alarm.textContent = error.message;
      alarm.hidden = false;
    }
    button.disabled = false;
  }

  const start = (/** @type {Job} */ job) =>
    h("button", { type: "button", onclick: (event) => act(event.currentTarget, ["Start a sync?", `Airbyte starts a sync of ${nameOf(job)}. If one is active, nothing is started.`, "Start the sync"], () => started(job)) }, "Start a sync");
  const cancel = (/** @type {Job} */ job) =>
    h("button", { type: "button", onclick: (event) => act(event.currentTarget, ["Cancel the job?", `Airbyte cancels job ${job.job_id} of ${nameOf(job)}. Tasks that wait for it fail.`, "Cancel the job"], () => cancelled(job)) }, "Cancel job");

  return {
    elements: [buttons, result, alarm],
    update(/** @type {Job} */ job, operator) {
      const offered = !operator ? [] : ended(job) ? (job.connection_id ? [["start", start]] : []) : [["cancel", cancel]];
      patch(buttons, offered, ([name]) => name, () => `${job.status} ${nameOf(job)}`, ([, make]) => make(job));
    },
  };
}

async function started(job) {
  const { instance, job_id, how } = await api.retryJob(job);
  const link = h("a", { href: jobPath({ instance, job_id }) }, `job ${job_id}`);
  return how === "attached" ? ["Nothing started: ", link, " was active already."] : ["Started: ", link, "."];
}

async function cancelled(job) {
  await api.cancelJob(job);
  return ["Airbyte cancels the job. Its state follows when the API reports it."];
}

/** The webhook's body, read when somebody opens it: `update(notification, operator)`. */
export function body() {
  const text = h("pre", { tabindex: 0, role: "region", "aria-label": "Body" });
  const note = h("p", { class: "faint" });
  const details = h("details", { ontoggle: () => details.open && read() }, h("summary", {}, "Show the body"), text, note);
  const element = section("Webhook body", details);
  let [id, shown] = [0, 0];

  async function read() {
    const wanted = id;
    if (shown === wanted) return;
    try {
      const { body: content, truncated } = await api.notificationBody(wanted);
      if (wanted !== id) return;
      shown = wanted;
      text.textContent = content;
      note.textContent = `As Airbyte sent it, secrets masked.${truncated ? " Its end is left out." : ""}`;
    } catch (error) {
      note.textContent = error.message;
    }
  }

  return {
    element,
    update(notification, operator) {
      element.hidden = !operator || notification === null;
      if (notification === null || notification.id === id) return;
      id = notification.id;
      if (details.open) read();
    },
  };
}
