// Plots of a connection's history, as SVG. Each says in words what it shows, and the table below has the numbers.

import { h } from "./dom.js";
import { date, dayOf, duration, number, seconds } from "./words.js";

const [HEIGHT, LEFT, RIGHT, BOTTOM, TOP] = [220, 68, 10, 26, 10];
const MARKED = ["succeeded", "failed", "cancelled"];
const STEPS = [1, 2, 5, 10];
const CLOCK_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400];

/** A plot in a frame as wide as its place: `draw(width)` is called again when that changes. */
export function plot(draw) {
  const frame = h("div", { class: "frame" });
  let [shown, current] = [0, draw];
  const redraw = () => frame.replaceChildren(current(shown));
  new ResizeObserver(([{ contentRect }]) => {
    const width = Math.round(contentRect.width);
    if (width && width !== shown) {
      shown = width;
      redraw();
    }
  }).observe(frame);
  return {
    element: frame,
    update(next) {
      current = next;
      if (shown) redraw();
    },
  };
}

const at = (job) => Date.parse(job.finished_at ?? job.observed_at);

/** The least step that leaves at most four of them below `most`. */
function stepOf(most, steps) {
  const fine = steps.find((step) => most / step <= 4);
  if (fine !== undefined) return fine;
  const power = 10 ** Math.floor(Math.log10(most / 4));
  return (STEPS.find((step) => most / (step * power) <= 4) ?? 10) * power;
}

function axes(width, label, { first, last, most, step, unit }) {
  const top = Math.ceil(most / step) * step;
  const inner = width - LEFT - RIGHT;
  const x = (moment) => (last > first ? LEFT + 8 + ((moment - first) / (last - first)) * (inner - 16) : LEFT + inner / 2);
  const y = (value) => HEIGHT - BOTTOM - (value / top) * (HEIGHT - BOTTOM - TOP);
  const svg = h("svg", { class: "plot", width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": label });
  for (let value = 0; value <= top; value += step) {
    svg.append(h("line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }));
    svg.append(h("text", { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, unit(value)));
  }
  const times = last > first ? (width > 480 ? [first, (first + last) / 2, last] : [first, last]) : [first];
  const short = last - first < 2 * 86_400_000;
  times.forEach((moment, i) => {
    const anchor = times.length === 1 ? "middle" : i === 0 ? "start" : i === times.length - 1 ? "end" : "middle";
    const edge = anchor === "start" ? LEFT : anchor === "end" ? width - RIGHT : x(moment);
    svg.append(h("text", { x: edge, y: HEIGHT - 6, "text-anchor": anchor }, (short ? date : dayOf)(new Date(moment))));
  });
  return { svg, x, y };
}

/** What the mouse is told of a mark. */
function told(mark, text) {
  const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
  title.textContent = text;
  mark.append(title);
  return mark;
}

const span = (jobs) => ({ first: Math.min(...jobs.map(at)), last: Math.max(...jobs.map(at)) });
const nothing = (text) => () => h("p", { class: "empty" }, text);
const line = (job) => `Job ${job.job_id}, ${job.status} ${date(new Date(at(job)))}`;

/** How long each job took; its outcome is its mark's shape and colour. `jobs` have ended, the newest first. */
export function durations(jobs, usual) {
  const known = jobs.filter((job) => seconds(job) !== null);
  if (!known.length) return nothing("No durations are known.");
  const most = Math.max(...known.map((job) => seconds(job)), usual ?? 0, 1);
  const label = `Durations of ${known.length} jobs: at most ${duration(most)}, usually ${duration(usual)}.`;
  return (width) => {
    const { svg, x, y } = axes(width, label, { ...span(known), most, step: stepOf(most, CLOCK_STEPS), unit: duration });
    if (usual !== null) svg.append(h("line", { class: "usual", x1: LEFT, x2: width - RIGHT, y1: y(usual), y2: y(usual) }));
    for (const job of known) svg.append(told(mark(job, x(at(job)), y(seconds(job))), `${line(job)}\n${duration(seconds(job))}`));
    return svg;
  };
}

function mark(job, x, y) {
  if (job.status === "succeeded") return h("circle", { class: "mark-succeeded", cx: x, cy: y, r: 4 });
  const shape = job.status === "failed" ? `M${x - 4} ${y - 4}l8 8m0-8l-8 8` : `M${x} ${y - 5}l5 5-5 5-5-5z`;
  return h("path", { class: `mark-${job.status}`, d: shape });
}

/** The records that each job moved. */
export function records(jobs) {
  const known = jobs.filter((job) => job.records !== null);
  if (!known.length) return nothing("No record counts are known.");
  const most = Math.max(...known.map((job) => job.records), 1);
  const label = `Records of ${known.length} jobs: at most ${number(most)}.`;
  return (width) => {
    const { svg, x, y } = axes(width, label, { ...span(known), most, step: stepOf(most, [1]), unit: number });
    const bar = Math.max(2, Math.min(14, (width - LEFT) / known.length / 2));
    for (const job of known) {
      const place = { x: x(at(job)) - bar / 2, y: Math.min(y(job.records), HEIGHT - BOTTOM - 1), width: bar };
      svg.append(told(h("rect", { class: "bar", ...place, height: HEIGHT - BOTTOM - place.y }), `${line(job)}\n${number(job.records)} records`));
    }
    return svg;
  };
}

/** How many jobs ended in which way, day by day. */
export function outcomes(jobs) {
  if (!jobs.length) return nothing("No completed jobs.");
  const days = new Map();
  const all = span(jobs);
  for (let moment = midnight(all.first); moment <= all.last; moment = midnight(moment + 36 * 3_600_000)) days.set(moment, { succeeded: 0, failed: 0, cancelled: 0 });
  for (const job of jobs) days.get(midnight(at(job)))[job.status] += 1;
  const most = Math.max(...[...days.values()].map((day) => day.succeeded + day.failed + day.cancelled));
  const count = (status) => jobs.filter((job) => job.status === status).length;
  const label = `Results of ${jobs.length} jobs by day: ${MARKED.map((status) => `${number(count(status))} ${status}`).join(", ")}.`;
  const [first, last] = [Math.min(...days.keys()), Math.max(...days.keys())];
  return (width) => {
    const { svg, x, y } = axes(width, label, { first, last, most, step: stepOf(most, [1]), unit: number });
    const bar = Math.max(2, Math.min(24, ((width - LEFT - RIGHT) / days.size) * 0.7));
    for (const [moment, day] of days) {
      let below = 0;
      for (const status of MARKED) {
        if (!day[status]) continue;
        const place = { x: x(moment) - bar / 2, y: y(below + day[status]), width: bar, height: y(below) - y(below + day[status]) };
        svg.append(told(h("rect", { class: `part-${status}`, ...place }), `${dayOf(new Date(moment))}: ${number(day[status])} ${status}`));
        below += day[status];
      }
    }
    return svg;
  };
}

const midnight = (moment) => new Date(moment).setHours(0, 0, 0, 0);
