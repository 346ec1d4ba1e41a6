import { h } from "../dom.js";

/** The page of a path that is none. */
export function missing({ path }) {
  const title = "Page not found";
  return {
    title,
    element: h("div", {}, h("h1", {}, title), h("p", {}, "There is no page at ", h("code", {}, path), "."), h("p", {}, h("a", { href: "./" }, "Overview"), " · ", h("a", { href: "jobs" }, "Jobs"))),
    update: () => {},
  };
}
