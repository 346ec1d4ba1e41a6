import { h, section, table } from "../dom.js";
import { ENDED_COLUMNS, jobStamp } from "../parts.js";
import { STATUSES, ended, idOf, nameOf, number } from "../words.js";

const STEP = 100;

export function jobs({ live, params, go }) {
  let shown = STEP;
  const search = h("input", { type: "search", name: "q", value: params.get("q") ?? "", autocomplete: "off" });
  const status = select("status", ["", ...STATUSES], params.get("status"), "any");
  const instance = h("select", { name: "instance" });
  const type = select("type", ["", "sync", "reset", "clear", "refresh"], params.get("type"), "any");
  const origin = select("origin", ["", "webhook", "poll", "submit"], params.get("origin"), "any");
  const active = h("input", { type: "checkbox", name: "active", checked: params.get("active") === "yes" });
  const filters = h(
    "form",
    { class: "filters", role: "search", onsubmit: (event) => event.preventDefault(), oninput: () => change() },
    h("label", {}, "Job, connection, source, destination or reason", search),
    h("label", {}, "State", status),
    h("label", {}, "Airbyte", instance),
    h("label", {}, "Type", type),
    h("label", {}, "Learnt by", origin),
    h("label", {}, "Running only", active),
  );
  const count = h("p", { class: "faint", role: "status" });
  const found = table("Jobs", ENDED_COLUMNS, { key: idOf, stamp: jobStamp, empty: "No job is like that." });
  const more = h("button", { type: "button", onclick: () => ((shown += STEP), update()) }, "Show more");

  function change() {
    shown = STEP;
    const wanted = { q: search.value.trim(), status: status.value, instance: instance.value, type: type.value, origin: origin.value, active: active.checked ? "yes" : "" };
    go(`jobs?${new URLSearchParams(Object.entries(wanted).filter(([, value]) => value))}`, { replace: true, stay: true });
    update();
  }

  function update() {
    const names = ["", ...new Set([...live.jobs.values()].map((job) => job.instance))].sort();
    if (instance.options.length !== names.length) {
      const chosen = instance.value || params.get("instance") || "";
      instance.replaceChildren(...names.map((name) => h("option", { value: name, selected: name === chosen }, name || "any")));
    }
    const words = search.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = live.newest().filter(
      (job) =>
        (!status.value || job.status === status.value) &&
        (!instance.value || job.instance === instance.value) &&
        (!type.value || job.job_type === type.value) &&
        (!origin.value || job.origin === origin.value) &&
        (!active.checked || !ended(job)) &&
        words.every((word) => text(job).includes(word)),
    );
    found.update(wanted.slice(0, shown));
    more.hidden = wanted.length <= shown;
    count.textContent = `${number(wanted.length)} of ${number(live.jobs.size)} jobs${live.complete ? "" : ", reading on …"}`;
  }

  return { title: "Jobs", element: h("div", {}, h("h1", {}, "Jobs"), filters, section("Found", count, found.element, more)), update };
}

function select(name, values, chosen, nothing) {
  return h("select", { name }, values.map((value) => h("option", { value, selected: value === (chosen ?? "") }, value || nothing)));
}

const text = (job) =>
  [job.job_id, job.connection_id, job.workspace_id, ...Object.values(job.names ?? {}), nameOf(job), job.error?.message, job.error?.type].join(" ").toLowerCase();
