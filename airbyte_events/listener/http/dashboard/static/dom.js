// Making and changing what is on the page.

/**
 * An element. Attributes that are false or null are left out; `on…` are listeners; children are nodes or text.
 *
 * @param {string} tag
 * @param {Record<string, any>} attributes
 * @param {...any} children
 * @returns {any} of the tag's own class
 */
export function h(tag, attributes = {}, ...children) {
  const svg = SVG.has(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const SVG = new Set(["svg", "g", "path", "circle", "rect", "line", "text"]);

/** An element that changes as time passes: `draw(element)` is called now, and every second while it is on the page. */
export function ticking(element, draw) {
  element.dataset.tick = "";
  element.tick = () => draw(element);
  draw(element);
  return element;
}

export function tick() {
  for (const element of document.querySelectorAll("[data-tick]")) /** @type {any} */ (element).tick();
}

/** Change a text only if it is another: what is selected stays so. */
export const write = (element, text) => {
  if (element.textContent !== text) element.textContent = text;
};

/**
 * Make the children of `parent` those of `items`, in order, touching only what has changed: what has the focus keeps it.
 * `key` names an item, `make` makes its element, `stamp` is what the element depends on.
 */
export function patch(parent, items, key, stamp, make) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const active = parent.contains(document.activeElement) ? document.activeElement : null;
  let before = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    const now = String(stamp(item));
    let element = old.get(name);
    old.delete(name);
    if (element === undefined || element.dataset.stamp !== now) {
      const fresh = make(item);
      fresh.dataset.key = name;
      fresh.dataset.stamp = now;
      if (element !== undefined) {
        const focused = element.contains(document.activeElement) ? indexOfFocus(element) : -1;
        if (before === element) before = fresh;
        element.replaceWith(fresh);
        if (focused >= 0) focusable(fresh)[focused]?.focus({ preventScroll: true });
      }
      element = fresh;
    }
    if (element === before) before = before.nextElementSibling;
    else parent.insertBefore(element, before);
  }
  for (const gone of old.values()) gone.remove();
  // What was moved has lost the focus; where what had it is gone, the list has it.
  if (active && document.activeElement === document.body) (active.isConnected ? active : parent.closest("[tabindex]"))?.focus({ preventScroll: true });
}

const focusable = (element) => [...element.querySelectorAll("a, button, input, select")];
const indexOfFocus = (element) => focusable(element).indexOf(document.activeElement);

/**
 * A table of the columns `{title, cell, class, sort}`: `update(items)` changes its rows.
 * With `sorting`, `{current, choose}`, the headings of columns that have a `sort` are buttons.
 * On a phone each row is a card, which takes their meaning from the elements: so it is said in roles.
 */
export function table(caption, columns, { key, stamp, empty, sorting = /** @type {any} */ (null) }) {
  const body = h("tbody", { role: "rowgroup" });
  const nothing = h("p", { class: "empty" }, empty);
  const heading = (each) =>
    h(
      "th",
      { role: "columnheader", scope: "col", class: each.class, "data-sort": each.sort },
      sorting && each.sort ? h("button", { type: "button", class: "quiet", onclick: () => sorting.choose(each.sort) }, each.title) : each.title,
    );
  const headings = columns.map(heading);
  const frame = h(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    h(
      "table",
      { role: "table", "aria-label": caption },
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, headings)),
      body,
    ),
  );
  const row = (item) => h("tr", { role: "row" }, columns.map((each) => h("td", { role: "cell", class: each.class, "data-title": each.title }, each.cell(item))));
  return {
    element: h("div", {}, frame, nothing),
    update(items) {
      for (const each of headings) {
        if (!sorting || each.dataset.sort !== sorting.current()) each.removeAttribute("aria-sort");
        else each.setAttribute("aria-sort", each.dataset.sort === "oldest" ? "ascending" : "descending");
      }
      frame.hidden = items.length === 0;
      nothing.hidden = items.length > 0;
      patch(body, items, key, stamp, row);
    },
  };
}

/** A part of a page, with a heading. */
export function section(title, ...content) {
  const id = `s-${title.toLowerCase().replaceAll(/[^a-z]+/g, "-")}`;
  // Of a table that has the same name, one is a landmark.
  const landmark = !content.some((each) => each.querySelector?.(`[aria-label="${title}"]`));
  return h("section", { "aria-labelledby": landmark && id }, h("h2", { id }, title), ...content);
}
