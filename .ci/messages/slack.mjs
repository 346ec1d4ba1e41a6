// Renders messages to Slack: node slack.mjs < MESSAGES.json > PAGE.html
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { text } from "node:stream/consumers";
import { createElement } from "react";
import { renderToStaticMarkup } from "react-dom/server";
import { Message } from "slack-blocks-to-jsx";

const icon = new URL("../../airbyte_events/listener/http/dashboard/static/icon.svg", import.meta.url);
const logo = `data:image/svg+xml;base64,${readFileSync(icon).toString("base64")}`;
const style = readFileSync(createRequire(import.meta.url).resolve("slack-blocks-to-jsx/dist/style.css"), "utf8");
const messages = JSON.parse(await text(process.stdin)).map(({ blocks }, key) =>
	createElement(
		"div",
		{ key, className: "message" },
		createElement(Message, { blocks, name: "airbyte-events", logo, time: new Date("2026-01-05T07:04:00") }),
	),
);
console.log(`<!doctype html><meta charset="utf-8"><style>${style}</style>${renderToStaticMarkup(messages)}`);
