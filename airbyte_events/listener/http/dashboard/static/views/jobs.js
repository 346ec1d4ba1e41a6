import { byCause, causeOf } from "../causes.js";
import { csvOf, save } from "../csv.js";
import { h, patch, section, table, write } from "../dom.js";
import { causes, jobColumns, rowStamp } from "../parts.js";
import { ORIGINS, STATUSES, endOf, ended, farBeyond, idOf, isLate, jobPath, lateness, nameOf, number, plural, seconds } from "../words.js";

const STEP = 100;
const CAUSES = 5;

const RANGES = { "1h": "last hour", "24h": "last 24 hours", "7d": "last 7 days", "30d": "last 30 days", custom: "from … to …" };
const HOURS = { "1h": 1, "24h": 24, "7d": 168, "30d": 720 };

const severity = (job) => (job.status === "failed" ? 0 : job.status === "cancelled" ? 1 : ended(job) ? 3 : 2);
const falling = (of) => (a, b) => (of(b) ?? -1) - (of(a) ?? -1);
/** @type {Record<string, [string, null | ((a: any, b: any) => number)]>} */
const ORDERS = {
  newest: ["newest first", null],
  oldest: ["oldest first", (a, b) => (endOf(a) < endOf(b) ? -1 : 1)],
  failures: ["failures first", (a, b) => severity(a) - severity(b)],
  duration: ["longest first", falling(seconds)],
  records: ["most records first", falling((job) => job.records)],
  bytes: ["most bytes first", falling((job) => job.bytes)],
  late: ["latest detected first", falling(lateness)],
};

export function jobs({ live, params, go, keep, place }) {
  let shown = place.shown ?? STEP;
  const cause = params.get("cause") ?? "";
  const search = h("input", { type: "search", name: "q", value: params.get("q") ?? "", autocomplete: "off" });
  const status = select("status", STATUSES, params.get("status"));
  const instance = select("instance", [], null);
  const type = select("type", ["sync", "reset", "refresh"], params.get("type"));
  const origin = select("origin", Object.keys(ORIGINS), params.get("origin"), ORIGINS);
  const since = select("since", Object.keys(RANGES), params.has("from") || params.has("to") ? "custom" : params.get("since"), RANGES);
  const [from, to] = ["from", "to"].map((name) => h("input", { type: "datetime-local", name, value: local(params.get(name)) }));
  const custom = [h("label", {}, "From", from), h("label", {}, "To", to)];
  const sort = h("select", { name: "sort" }, Object.entries(ORDERS).map(([value, [text]]) => h("option", { value, selected: value === params.get("sort") }, text)));
  const [active, late, long] = ["active", "late", "long"].map((name) => h("input", { type: "checkbox", name, checked: params.get(name) === "yes" }));
  const check = (input, text) => h("label", { class: "check" }, input, text);
  const chosen = h("span", { class: "faint" });
  const filters = h(
    "form",
    { role: "search", "aria-label": "Jobs", onsubmit: (event) => event.preventDefault(), oninput: () => change() },
    h("div", { class: "filters" }, h("label", {}, "Job, connection, source, destination or reason", search)),
    h(
      "details",
      // A phone's first screen is for the jobs.
      { class: "more", open: matchMedia("(min-width: 44rem)").matches },
      h("summary", {}, "Filters and sorting ", chosen),
      h(
        "div",
        { class: "filters" },
        h("label", {}, "State", status),
        h("label", {}, "Airbyte", instance),
        h("label", {}, "Type", type),
        h("label", {}, "Detected by", origin),
        h("label", {}, "Time range", since),
        ...custom,
        h("label", {}, "Sort by", sort),
        check(active, "Running only"),
        check(late, "Detected late"),
        check(long, "Far beyond usual time"),
      ),
    ),
  );
  const narrowed = h("p", { hidden: true });
  const count = h("p", { class: "faint", role: "status" });
  const choose = (key) => {
    sort.value = sort.value === key ? "newest" : key;
    change();
  };
  const found = table("Jobs", jobColumns(live), { key: idOf, stamp: rowStamp(live), empty: "No matching jobs.", sorting: { current: () => sort.value, choose } });
  const groups = h("ul", { class: "failures" });
  const failures = section("Failures by cause", groups);
  const older = h("ul", { class: "plain" });
  const more = h("button", { type: "button", onclick: () => show(shown + STEP) }, "Show more");
  const csv = h("button", { type: "button", onclick: () => save(`airbyte-jobs-${new Date().toISOString().slice(0, 10)}.csv`, csvOf(matching())) }, "Export as CSV");

  /** What is asked for, as in the URL. */
  function wanted() {
    const range = since.value === "custom";
    const all = {
      q: search.value.trim(),
      status: status.value,
      instance: instance.value,
      type: type.value,
      origin: origin.value,
      since: range ? "" : since.value,
      from: range ? utc(from.value) : "",
      to: range ? utc(to.value) : "",
      sort: sort.value === "newest" ? "" : sort.value,
      active: yes(active),
      late: yes(late),
      long: yes(long),
      cause,
    };
    return Object.entries(all).filter(([, value]) => value);
  }

  const address = (given) => (given.length ? `jobs?${new URLSearchParams(given)}` : "jobs");

  function change() {
    go(address(wanted()), { stay: true });
    show(STEP);
  }

  function show(rows) {
    shown = rows;
    keep({ shown });
    update();
  }

  const words = () => search.value.trim().toLowerCase().split(/\s+/).filter(Boolean);

  /** The job number that is searched, if it is one. */
  function sought() {
    const [word, another] = words();
    return another === undefined && /^[1-9]\d{0,15}$/.test(word ?? "") ? Number(word) : null;
  }

  function matching() {
    const [first, last] = bounds();
    const searched = words();
    const all = live.newest().filter(
      (job) =>
        (!status.value || job.status === status.value) &&
        (!instance.value || job.instance === instance.value) &&
        (!type.value || job.job_type === type.value) &&
        (!origin.value || (ended(job) && job.origin === origin.value)) &&
        (!active.checked || !ended(job)) &&
        (!late.checked || isLate(job)) &&
        (!long.checked || farBeyond(seconds(job), live.usual(job))) &&
        (!cause || causeOf(job) === cause) &&
        (first === null || Date.parse(endOf(job)) >= first) &&
        (last === null || Date.parse(endOf(job)) <= last) &&
        searched.every((word) => text(job).includes(word)),
    );
    const [, order] = ORDERS[sort.value] ?? ORDERS.newest;
    if (order) all.sort(order);
    // Whoever types a job's number means that one before all that have it somewhere.
    const id = sought();
    const exact = id === null ? [] : all.filter((job) => job.job_id === id);
    return exact.length ? [...exact, ...all.filter((job) => job.job_id !== id)] : all;
  }

  /** The time range, in milliseconds since 1970. */
  function bounds() {
    if (since.value === "custom") return [from.value, to.value].map((value) => (value ? Date.parse(value) : null));
    return [HOURS[since.value] ? Date.now() - HOURS[since.value] * 3_600_000 : null, null];
  }

  function update() {
    const selected = instance.value || params.get("instance") || "";
    const names = [...new Set([...live.jobs.values()].map((job) => job.instance).concat(selected || []))].sort();
    // It is as it was asked for from the first: a name that no job has by now stays chosen.
    if (instance.options.length !== names.length + 1) instance.replaceChildren(...options(names, selected));
    for (const label of custom) label.hidden = since.value !== "custom";
    const given = wanted();
    const filtered = given.filter(([name]) => name !== "q").length;
    write(chosen, filtered ? `(${filtered} set)` : "");
    narrowed.hidden = !cause;
    const without = address(given.filter(([name]) => name !== "cause"));
    patch(narrowed, cause ? [without] : [], (each) => each, () => cause, () => h("span", {}, "Failures with the cause ", h("q", {}, cause), ". ", h("a", { href: without }, "Show all causes")));
    const all = matching();
    const failed = cause ? [] : byCause(all);
    failures.hidden = failed.length === 0;
    causes(groups, failed.slice(0, CAUSES), (group) => address([...given.filter(([name]) => name !== "status"), ["cause", group.cause]]), failed.length - CAUSES);
    found.update(all.slice(0, shown));
    const id = sought();
    const unread = id !== null && live.complete && all[0]?.job_id !== id;
    patch(older, unread ? (instance.value ? [instance.value] : names) : [], (each) => `${each}/${id}`, () => "", (each) =>
      h("li", {}, "Not in this list: ", h("a", { href: jobPath({ instance: each, job_id: Number(id) }) }, `Job ${id} of ${each}`)),
    );
    more.hidden = all.length <= shown;
    csv.disabled = all.length === 0;
    csv.title = `${plural(all.length, "job")} as a file for spreadsheets`;
    write(count, `${number(all.length)} of ${number(live.jobs.size)} jobs${live.complete ? "" : ", loading …"}`);
  }

  return {
    title: "Jobs",
    element: h("div", {}, h("h1", {}, "Jobs"), filters, narrowed, failures, section("Matching jobs", h("div", { class: "bar-line" }, count, csv), found.element, older, more)),
    update,
  };
}

const options = (values, chosen, words = {}) => ["", ...values].map((value) => h("option", { value, selected: value === (chosen ?? "") }, words[value] ?? (value || "any")));
const select = (name, values, chosen, words) => h("select", { name }, options(values, chosen, words));
const yes = (input) => (input.checked ? "yes" : "");

/** A time of this place as UTC, so that an address means the same elsewhere; "" for none. */
const utc = (value) => (value ? new Date(value).toISOString() : "");

/** The reverse, as `datetime-local` has it. */
function local(value) {
  const moment = new Date(value ?? "");
  if (Number.isNaN(moment.getTime())) return "";
  return new Date(moment.getTime() - moment.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

const texts = new WeakMap();

/** What is searched. */
function text(job) {
  const known = texts.get(job);
  if (known?.name === nameOf(job)) return known.text;
  const said = [job.job_id, job.connection_id, job.workspace_id, ...Object.values(job.names ?? {}), nameOf(job), job.error?.message, job.error?.type].join(" ").toLowerCase();
  texts.set(job, { name: nameOf(job), text: said });
  return said;
}
