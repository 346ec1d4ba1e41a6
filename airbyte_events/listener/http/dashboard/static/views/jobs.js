import { h, patch, section, table, write } from "../dom.js";
import { JOB_COLUMNS, jobStamp } from "../parts.js";
import { ORIGINS, STATUSES, ended, idOf, jobPath, nameOf, number } from "../words.js";

const STEP = 100;

export function jobs({ live, params, go, keep, place }) {
  let shown = place.shown ?? STEP;
  const search = h("input", { type: "search", name: "q", value: params.get("q") ?? "", autocomplete: "off" });
  const status = select("status", STATUSES, params.get("status"));
  const instance = select("instance", [], null);
  const type = select("type", ["sync", "reset", "refresh"], params.get("type"));
  const origin = select("origin", Object.keys(ORIGINS), params.get("origin"), ORIGINS);
  const active = h("input", { type: "checkbox", name: "active", checked: params.get("active") === "yes" });
  const filters = h(
    "form",
    { class: "filters", role: "search", onsubmit: (event) => event.preventDefault(), oninput: () => change() },
    h("label", {}, "Job, connection, source, destination or reason", search),
    h("label", {}, "State", status),
    h("label", {}, "Airbyte", instance),
    h("label", {}, "Type", type),
    h("label", {}, "Detected by", origin),
    h("label", { class: "check" }, active, "Running only"),
  );
  const count = h("p", { class: "faint", role: "status" });
  const found = table("Jobs", JOB_COLUMNS, { key: idOf, stamp: jobStamp, empty: "No matching jobs." });
  const older = h("ul", { class: "plain" });
  const more = h("button", { type: "button", onclick: () => show(shown + STEP) }, "Show more");

  function change() {
    const wanted = { q: search.value.trim(), status: status.value, instance: instance.value, type: type.value, origin: origin.value, active: active.checked ? "yes" : "" };
    const given = Object.entries(wanted).filter(([, value]) => value);
    go(given.length ? `jobs?${new URLSearchParams(given)}` : "jobs", { stay: true });
    show(STEP);
  }

  function show(rows) {
    shown = rows;
    keep({ shown });
    update();
  }

  function update() {
    const chosen = instance.value || params.get("instance") || "";
    const names = [...new Set([...live.jobs.values()].map((job) => job.instance).concat(chosen || []))].sort();
    // It is as it was asked for from the first: a name that no job has by now stays chosen.
    if (instance.options.length !== names.length + 1) instance.replaceChildren(...options(names, chosen));
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
    const sought = words.length === 1 && /^[1-9]\d{0,15}$/.test(words[0]) ? Number(words[0]) : null;
    // Whoever types a job's number means that one before all that have it somewhere.
    const exact = wanted.filter((job) => job.job_id === sought);
    found.update([...exact, ...(exact.length ? wanted.filter((job) => job.job_id !== sought) : wanted)].slice(0, shown));
    const unread = sought !== null && !exact.length && live.complete;
    patch(older, unread ? (instance.value ? [instance.value] : names) : [], (each) => `${each}/${sought}`, () => "", (each) =>
      h("li", {}, "Not in this list: ", h("a", { href: jobPath({ instance: each, job_id: Number(sought) }) }, `Job ${sought} of ${each}`)),
    );
    more.hidden = wanted.length <= shown;
    write(count, `${number(wanted.length)} of ${number(live.jobs.size)} jobs${live.complete ? "" : ", loading …"}`);
  }

  return { title: "Jobs", element: h("div", {}, h("h1", {}, "Jobs"), filters, section("Matching jobs", count, found.element, older, more)), update };
}

const options = (values, chosen, words = {}) => ["", ...values].map((value) => h("option", { value, selected: value === (chosen ?? "") }, words[value] ?? (value || "any")));
const select = (name, values, chosen, words) => h("select", { name }, options(values, chosen, words));

const texts = new WeakMap();

/** What is searched. */
function text(job) {
  const known = texts.get(job);
  if (known?.name === nameOf(job)) return known.text;
  const said = [job.job_id, job.connection_id, job.workspace_id, ...Object.values(job.names ?? {}), nameOf(job), job.error?.message, job.error?.type].join(" ").toLowerCase();
  texts.set(job, { name: nameOf(job), text: said });
  return said;
}
