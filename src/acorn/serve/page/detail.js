// What is known of one token: its figures, and the tokens that could have stood there.

import { button, el, percent, soft, whole } from "./dom.js";
import { bits, visibleLine } from "./measures.js";

/** The panel of a token. `pick(id, piece)`: if given, an alternative can be chosen. */
export function tokenDetail(token, { vocabulary = 0, pick = null, loading = false } = {}) {
  const facts = [["Id", whole(token.id)], ["Bytes", token.bytes ? token.bytes.match(/../g).join(" ") : "none"]];
  if (token.logprob !== null && token.logprob !== undefined) {
    facts.push(["Probability", percent(Math.exp(token.logprob))], ["Surprise", `${bits(-token.logprob).toFixed(2)} bits`]);
  }
  if (token.rank) facts.push(["Rank", vocabulary ? `${whole(token.rank)} of ${whole(vocabulary)}` : whole(token.rank)]);
  if (token.entropy !== null && token.entropy !== undefined) facts.push(["Entropy here", `${bits(token.entropy).toFixed(2)} bits`]);
  const list = token.top?.length ? alternatives(token, pick) : null;
  const none = token.logprob === null ? "Nothing stands before it, so it has no probability." : "";
  return el("div", { class: "detail" },
    el("h3", {}, el("code", { text: visibleLine(token) })),
    el("dl", { class: "facts" }, facts.map(([name, value]) => [el("dt", { text: name }), el("dd", { text: value })])),
    list && el("h4", { text: pick ? "What could stand here: choose one to branch" : "What could stand here" }),
    list,
    !list && soft(loading ? "Asking the model …" : none));
}

function alternatives(token, pick) {
  const most = Math.exp(token.top[0][2]);
  return el("ol", { class: "bars" }, token.top.map(([id, piece, logprob]) => {
    const p = Math.exp(logprob);
    return bar({ piece: visibleLine({ piece, bytes: "" }), p, width: p / most, isCurrent: id === token.id, action: pick && (() => pick(id, piece)) });
  }));
}

/** A row with a bar; a button if there is an action. `mark`: place of a thin line, from 0 to 1. */
export function bar({ piece, p, width, mark = null, isCurrent = false, action = null }) {
  const inside = [
    el("span", { class: "piece", text: piece }),
    el("span", { class: "track", "aria-hidden": "true" },
      el("span", { class: "fill", css: { width: `${100 * width}%` } }),
      mark !== null && el("span", { class: "mark", css: { left: `${100 * Math.min(1, mark)}%` } })),
    el("span", { class: "share", text: percent(p) }),
  ];
  const properties = { class: `bar${isCurrent ? " current" : ""}${p === 0 ? " gone" : ""}` };
  const row = action ? button("", action, { ...properties, "aria-label": `${piece}, ${percent(p)}${isCurrent ? ", stands here" : ""}` }) : el("div", properties);
  row.append(...inside);
  return el("li", {}, row);
}
