// Making and changing what is on the page.

/** An element. Attributes that are false or null are left out; `on…` are listeners; children are nodes or text. */
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

const SVG = new Set(["svg", "g", "path", "circle", "rect", "line", "text", "polyline"]);

/**
 * Make the children of `parent` those of `items`, in order, touching only what has changed: what has the focus keeps it.
 * `key` names an item, `make` makes its element, `stamp` is what the element depends on.
 */
export function patch(parent, items, key, stamp, make) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
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
        if (focused >= 0) focusable(fresh)[focused]?.focus();
      }
      element = fresh;
    }
    if (element === before) before = before.nextElementSibling;
    else parent.insertBefore(element, before);
  }
  for (const gone of old.values()) gone.remove();
}

const focusable = (element) => [...element.querySelectorAll("a, button, input, select")];
const indexOfFocus = (element) => focusable(element).indexOf(document.activeElement);

/** A table of the columns `{title, cell, class}`: `update(items)` changes its rows. */
export function table(caption, columns, { key, stamp, empty }) {
  const body = h("tbody");
  const nothing = h("p", { class: "empty" }, empty);
  const frame = h(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    h(
      "table",
      {},
      h("caption", { class: "unseen" }, caption),
      h("thead", {}, h("tr", {}, columns.map((each) => h("th", { scope: "col", class: each.class }, each.title)))),
      body,
    ),
  );
  const row = (item) => h("tr", {}, columns.map((each) => h("td", { class: each.class }, each.cell(item))));
  return {
    element: h("div", {}, frame, nothing),
    update(items) {
      frame.hidden = items.length === 0;
      nothing.hidden = items.length > 0;
      patch(body, items, key, stamp, row);
    },
  };
}

/** A part of a page, with a heading. */
export function section(title, ...content) {
  const id = `s-${title.toLowerCase().replaceAll(/[^a-z]+/g, "-")}`;
  return h("section", { "aria-labelledby": id }, h("h2", { id }, title), ...content);
}
