import { h, patch, section, table, write } from "../dom.js";
import { connectionLink, detected, jobColumns, jobStamp, progress, rowStamp, state, why } from "../parts.js";
import * as plots from "../plots.js";
import { ago, duration, ended, idOf, nameOf, number, usualTime } from "../words.js";

const STEP = 100;
const PLOTTED = 200;
const REASON = { title: "Reason", cell: (job) => why(job) || "–", class: "long" };

export function connections({ live, params, go, keep, place }) {
  let shown = place.shown ?? STEP;
  const search = h("input", { type: "search", name: "q", value: params.get("q") ?? "", autocomplete: "off" });
  const filters = h(
    "form",
    { class: "filters", role: "search", onsubmit: (event) => event.preventDefault(), oninput: () => change() },
    h("label", {}, "Connection, source, destination or workspace", search),
  );
  const count = h("p", { class: "faint", role: "status" });
  const list = table(
    "Connections",
    [
      { title: "Connection", cell: (each) => connectionLink(each.last), class: "long" },
      { title: "Airbyte", cell: (each) => each.last.instance },
      { title: "Now", cell: (each) => state(each.last) },
      { title: "Last completed", cell: (each) => (each.ends[0] ? ago(each.ends[0].finished_at ?? each.ends[0].observed_at) : "–") },
      { title: "Succeeded", cell: (each) => share(each.ends), class: "n" },
      { title: "Usual time", cell: (each) => duration(usualTime(each.ends)), class: "n" },
      { title: "Last records", cell: (each) => number(each.ends[0]?.records ?? null), class: "n" },
      { title: "Last detected by", cell: (each) => (each.ends[0] ? detected(each.ends[0]) : "–"), class: "tight" },
    ],
    { key: (each) => each.key, stamp: (each) => `${jobStamp(each.last)} ${each.ends.length}`, empty: "No matching connections." },
  );
  const more = h("button", { type: "button", onclick: () => show(shown + STEP) }, "Show more");

  function change() {
    go(search.value.trim() ? `connections?${new URLSearchParams({ q: search.value.trim() })}` : "connections", { stay: true });
    show(STEP);
  }

  function show(rows) {
    shown = rows;
    keep({ shown });
    update();
  }

  function update() {
    const words = search.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const all = [...live.connections()].map(([key, jobs]) => ({ key, last: jobs[0], jobs }));
    const found = all.filter(({ last }) => {
      const text = [nameOf(last), last.connection_id, ...Object.values(last.names ?? {})].join(" ").toLowerCase();
      return words.every((word) => text.includes(word));
    });
    list.update(found.slice(0, shown).map((each) => ({ ...each, ends: each.jobs.filter(ended) })));
    more.hidden = found.length <= shown;
    write(count, `${number(found.length)} of ${number(all.length)} connections with jobs${live.complete ? "" : ", loading …"}`);
  }
  return { title: "Connections", element: h("div", {}, h("h1", {}, "Connections"), filters, section("By last change", count, list.element, more)), update };
}

const share = (ends) => (ends.length ? `${Math.round((100 * ends.filter((job) => job.status === "succeeded").length) / ends.length)} % of ${number(ends.length)}` : "–");

export function connection({ live, instance, id, keep, place }) {
  let shown = place.shown ?? STEP;
  const title = h("h1", {}, id);
  const about = h("p", { class: "faint" });
  const now = h("div", { class: "now" });
  const idle = h("p", { class: "faint" }, "No running job.");
  const [durations, records, outcomes] = [plots.plot(() => ""), plots.plot(() => ""), plots.plot(() => "")];
  const list = table("Jobs of this connection", [...jobColumns(live).filter(({ title }) => title !== "Connection"), REASON], { key: idOf, stamp: rowStamp(live), empty: "No jobs known." });
  const more = h("button", { type: "button", onclick: extend }, "Show more");
  const count = h("p", { class: "faint" });
  let plotted = null;

  function extend() {
    shown += STEP;
    keep({ shown });
    update();
  }

  function update() {
    const jobs = live.connections().get(`${instance}/${id}`) ?? [];
    const all = jobs.filter(ended);
    const ends = all.slice(0, PLOTTED);
    if (jobs.length) {
      write(title, nameOf(jobs[0]));
      const { names, workspace_id } = jobs[0];
      write(about, [`Airbyte ${instance}`, names?.workspace ?? workspace_id, names && `${names.source} → ${names.destination}`, id].filter(Boolean).join(" · "));
    }
    const usual = usualTime(ends);
    const running = jobs.filter((job) => !ended(job));
    idle.hidden = running.length > 0;
    patch(now, running.slice(0, 3), idOf, (job) => `${jobStamp(job)} ${usual}`, (job) => h("p", {}, state(job), " ", progress(job, usual)));
    const stamp = ends.map(jobStamp).join();
    if (stamp !== plotted) {
      plotted = stamp;
      durations.update(plots.durations(ends, usual));
      records.update(plots.records(ends));
      outcomes.update(plots.outcomes(ends));
      count.textContent = all.length > PLOTTED ? `The plots show the last ${PLOTTED} of ${number(all.length)} completed jobs.` : "";
    }
    list.update(jobs.slice(0, shown));
    more.hidden = jobs.length <= shown;
  }

  return {
    title: "Connection",
    element: h(
      "div",
      {},
      title,
      about,
      now,
      idle,
      h(
        "div",
        { class: "columns plots" },
        section("Durations", durations.element, legend(h("span", { class: "dashes" }, "usual time"))),
        section("Records", records.element),
        section("Results", outcomes.element, legend()),
      ),
      section("Jobs", count, list.element, more),
    ),
    update,
  };
}

const legend = (...others) => h("p", { class: "legend" }, ["succeeded", "failed", "cancelled"].map((status) => h("span", { class: `state ${status}` }, status)), others);
