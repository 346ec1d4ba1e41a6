// Plots of a connection's history, as SVG. Each says in words what it shows, and the table below has the numbers.

import { h } from "./dom.js";
import { duration, number, seconds } from "./words.js";

const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [720, 220, 64, 24, 10];

const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });

function frame(label, jobs, most, unit) {
  const first = Date.parse(at(jobs.at(-1)));
  const last = Date.parse(at(jobs[0]));
  const x = (job) => LEFT + 10 + ((Date.parse(at(job)) - first) / Math.max(1, last - first)) * (WIDTH - LEFT - 24);
  const y = (value) => HEIGHT - BOTTOM - (value / most) * (HEIGHT - BOTTOM - TOP);
  const svg = h("svg", { class: "plot", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label });
  for (const share of [0, 0.5, 1]) {
    svg.append(h("line", { class: "axis", x1: LEFT, x2: WIDTH, y1: y(most * share), y2: y(most * share) }));
    svg.append(h("text", { x: LEFT - 6, y: y(most * share) + 4, "text-anchor": "end" }, unit(most * share)));
  }
  svg.append(h("text", { x: LEFT + 10, y: HEIGHT - 6 }, day.format(first)));
  if (last > first) svg.append(h("text", { x: WIDTH - 2, y: HEIGHT - 6, "text-anchor": "end" }, day.format(last)));
  return { svg, x, y };
}

const at = (job) => job.finished_at ?? job.observed_at;

/** How long each job took; its outcome is its mark's shape and colour. `jobs` have ended, the newest first. */
export function durations(jobs, usual) {
  const known = jobs.filter((job) => seconds(job) !== null);
  if (!known.length) return h("p", { class: "empty" }, "No job has told how long it took.");
  const most = Math.max(...known.map((job) => seconds(job)), usual ?? 0, 1);
  const label = `How long ${known.length} jobs took: at most ${duration(most)}, usually ${duration(usual)}.`;
  const { svg, x, y } = frame(label, known, most, duration);
  if (usual !== null) svg.append(h("line", { class: "usual", x1: LEFT, x2: WIDTH, y1: y(usual), y2: y(usual) }));
  for (const job of known) svg.append(mark(job, x(job), y(seconds(job))));
  return svg;
}

function mark(job, x, y) {
  if (job.status === "succeeded") return h("circle", { class: "mark-succeeded", cx: x, cy: y, r: 4 });
  const shape = job.status === "failed" ? `M${x - 4} ${y - 4}l8 8m0-8l-8 8` : `M${x} ${y - 5}l5 5-5 5-5-5z`;
  return h("path", { class: `mark-${job.status}`, d: shape });
}

/** The records that each job moved. */
export function records(jobs) {
  const known = jobs.filter((job) => job.records !== null);
  if (!known.length) return h("p", { class: "empty" }, "No job has told its records.");
  const most = Math.max(...known.map((job) => job.records), 1);
  const { svg, x, y } = frame(`Records that ${known.length} jobs moved: at most ${number(most)}.`, known, most, (value) => number(Math.round(value)));
  const width = Math.max(2, Math.min(14, (WIDTH - LEFT) / known.length / 2));
  for (const job of known) {
    svg.append(h("rect", { class: "bar", x: x(job) - width / 2, y: y(job.records), width, height: Math.max(1, HEIGHT - BOTTOM - y(job.records)) }));
  }
  return svg;
}
