import { h } from "../dom.js";
import { asOf } from "../parts.js";

const STEP = 100;
const MOST = 10_000; // items that are looked through for those that are wanted

/**
 * A list that is read from its newest item on: `load(limit, before)` gives `{items, next}`.
 * `list` is the table, and `matches` says which items are wanted.
 * `shown` is how many of them were shown before, and `kept` is told how many they are.
 *
 * @param {(limit: number, before: any) => Promise<{items: any[], next: any}>} load
 * @param {any} list
 * @param {{matches?: (item: any) => boolean, shown?: number, kept?: (shown: number) => void}} options
 */
export function reader(load, list, { matches = () => true, shown = STEP, kept = () => {} } = {}) {
  const alarm = h("p", { class: "alarm", hidden: true, role: "alert" });
  const more = h("button", { type: "button", hidden: true, onclick: () => extend() }, "Show more");
  const bounds = h("p", { class: "faint" });
  const fresh = asOf();
  const items = new Map();
  let [next, wanted] = [null, shown];

  const found = () => [...items.values()].sort((a, b) => b.id - a.id).filter(matches);

  function draw() {
    const all = found();
    list.update(all.slice(0, wanted));
    more.hidden = all.length <= wanted && (next === null || items.size >= MOST);
    bounds.textContent = next !== null && items.size >= MOST ? `Among the newest ${MOST}.` : "";
  }

  async function guard(work) {
    try {
      await work();
      alarm.hidden = true;
      fresh.mark();
    } catch (error) {
      alarm.textContent = error.message;
      alarm.hidden = false;
    }
    draw();
  }

  async function take(limit, before) {
    const page = await load(limit, before);
    for (const item of page.items) items.set(item.id, item);
    return page;
  }

  async function fill() {
    while (found().length < wanted && next !== null && items.size < MOST) next = (await take(1000, next)).next;
  }

  /** What has come or changed since; what was read further back stays. */
  const refresh = () =>
    guard(async () => {
      const newest = Math.max(0, ...items.keys());
      const page = await load(STEP, null);
      if (!page.items.some(({ id }) => id <= newest)) {
        items.clear();
        next = page.next;
      }
      for (const item of page.items) items.set(item.id, item);
      await fill();
    });

  const extend = () =>
    guard(async () => {
      wanted += STEP;
      kept(wanted);
      await fill();
    });

  /** Show what is wanted now. */
  const refilter = () =>
    guard(async () => {
      wanted = STEP;
      kept(wanted);
      await fill();
    });

  /** Do what an item's button is for, then read that item again. */
  async function act(button, id, action) {
    button.disabled = true;
    await guard(async () => {
      await action();
      await take(1, id + 1);
    });
    button.disabled = false;
  }

  return { refresh, refilter, act, elements: [alarm, list.element, more, bounds, fresh.element] };
}
