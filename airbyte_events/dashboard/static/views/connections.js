import { h, section, table } from "../dom.js";
import { ENDED_COLUMNS, connectionLink, jobStamp, learnt, progress, state, usualTime } from "../parts.js";
import * as plots from "../plots.js";
import { duration, ended, idOf, nameOf, number, when } from "../words.js";

const PLOTTED = 200;

export function connections({ live, params, go }) {
  const search = h("input", { type: "search", value: params.get("q") ?? "", autocomplete: "off" });
  const filters = h(
    "form",
    { class: "filters", role: "search", onsubmit: (event) => event.preventDefault(), oninput: () => (go(search.value ? `connections?${new URLSearchParams({ q: search.value })}` : "connections", { replace: true, stay: true }), update()) },
    h("label", {}, "Connection, source or destination", search),
  );
  const list = table(
    "Connections",
    [
      { title: "Connection", cell: (each) => connectionLink(each.last) },
      { title: "Now", cell: (each) => state(each.last) },
      { title: "Last end", cell: (each) => (each.ends[0] ? when(each.ends[0].finished_at ?? each.ends[0].observed_at, h) : "–") },
      { title: "Succeeded", cell: (each) => share(each.ends), class: "n" },
      { title: "Usual time", cell: (each) => duration(usualTime(each.ends)), class: "n" },
      { title: "Last records", cell: (each) => number(each.ends[0]?.records ?? null), class: "n wide" },
      { title: "Last end learnt by", cell: (each) => (each.ends[0] ? learnt(each.ends[0]) : "–"), class: "wide tight" },
    ],
    { key: (each) => each.key, stamp: (each) => `${jobStamp(each.last)} ${each.ends.length}`, empty: "No connection is like that." },
  );
  function update() {
    const words = search.value.trim().toLowerCase();
    const all = [...live.connections()].map(([key, jobs]) => ({ key, last: jobs[0], ends: jobs.filter(ended) }));
    list.update(all.filter(({ last }) => !words || [nameOf(last), last.connection_id, ...Object.values(last.names ?? {})].join(" ").toLowerCase().includes(words)).slice(0, 500));
  }
  return { title: "Connections", element: h("div", {}, h("h1", {}, "Connections"), filters, section("By last change", list.element)), update };
}

const share = (ends) => (ends.length ? `${Math.round((100 * ends.filter((job) => job.status === "succeeded").length) / ends.length)} % of ${ends.length}` : "–");

export function connection({ live, instance, id }) {
  const title = h("h1", {}, id);
  const now = h("p", {});
  const durations = h("div", {});
  const records = h("div", {});
  const list = table("Jobs of this connection", ENDED_COLUMNS.filter(({ title }) => title !== "Connection"), { key: idOf, stamp: jobStamp, empty: "No job of it is known." });
  let plotted = "";
  return {
    title: "Connection",
    element: h("div", {}, title, now, h("div", { class: "columns" }, section("Durations", durations), section("Records", records)), section("Jobs", list.element)),
    refresh: 2000,
    update() {
      const jobs = live.connections().get(`${instance}/${id}`) ?? [];
      const ends = jobs.filter(ended).slice(0, PLOTTED);
      if (jobs.length) title.textContent = nameOf(jobs[0]);
      const usual = usualTime(ends);
      const running = jobs.find((job) => !ended(job));
      now.replaceChildren(...(running ? [state(running), " ", progress(running, usual)] : [h("span", { class: "faint" }, "No job of it runs.")]));
      const stamp = ends.map(jobStamp).join();
      if (stamp !== plotted) {
        plotted = stamp;
        durations.replaceChildren(plots.durations(ends, usual), legend());
        records.replaceChildren(plots.records(ends));
      }
      list.update(jobs.slice(0, PLOTTED));
    },
  };
}

const legend = () => h("p", { class: "faint" }, ["succeeded", "failed", "cancelled"].map((status) => [h("span", { class: `state ${status}` }, status), "  "]), "- - usual");
