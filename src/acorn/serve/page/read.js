// Read: your own text, how many bits per byte the model needs for it, and where it hurts.

import { postJson } from "./api.js";
import { tokenDetail } from "./detail.js";
import { actions, button, el, labelled, notice, percent, scrolling, soft, tilesOf, whole } from "./dom.js";
import { MEASURES, bits, visibleLine } from "./measures.js";
import { TokenView, measureChoice } from "./tokens.js";

const WORST = 10;
const AROUND = 4;
const MOST_ROWS = 400;
const LONG = 12_000; // characters from which alternatives are left out: they are most of an answer

/** The text of tokens, in which characters of several tokens are whole. */
const textOf = (tokens) => new TextDecoder().decode(new Uint8Array(tokens.flatMap(({ bytes }) => bytes.match(/../g) ?? []).map((byte) => parseInt(byte, 16))));

export function readView(served) {
  const text = el("textarea", { rows: 8, spellcheck: "false", placeholder: "Paste a text of yours" });
  const message = notice();
  const view = new TokenView({ label: "The text, token by token", choose: showToken });
  const [figures, worst, detail, table] = [el("dl", { class: "tiles" }), el("ol", { class: "worst" }), el("div", { class: "card" }), el("div")];
  const results = el("div", { hidden: true },
    figures, measureChoice((name) => view.colorBy(name)), view.node, detail,
    el("h2", { text: "Where it hurts" }), worst, table);
  const node = el("div", { on: { keydown: keys } },
    labelled("Your text", text, "Ctrl+Enter reads it. It is scored as one document, as acorn evaluate --input does."),
    actions(button("Read it", read, { class: "primary" })),
    message.node, results);

  async function read() {
    message.say("Reading …");
    try {
      const top = text.value.length > LONG ? 0 : 10;
      show(await postJson("v1/inspect", { input: text.value, kind: "document", top, next_top: 0 }));
      message.say("");
    } catch (error) {
      message.fail(error);
    }
  }

  function show(found) {
    const tokens = found.tokens;
    const scored = tokens.length - 1;
    const tiles = [
      ["Bits per byte", found.bits_per_byte === null ? "–" : found.bits_per_byte.toFixed(3), found.note ?? ""],
      ["Bits per token", bits(found.loss_per_token).toFixed(3), `loss ${found.loss_per_token.toFixed(3)} nats`],
      ["Tokens", whole(scored), `${(found.bytes / scored).toFixed(2)} bytes each, with the end`],
      ["Bytes", whole(found.bytes), ""],
      ["Best guess was right", percent(tokens.filter((token) => token.rank === 1).length / scored), ""],
    ];
    figures.replaceChildren(...tilesOf(tiles));
    view.show(tokens);
    detail.replaceChildren(soft("Choose a token to see its figures."));
    const order = tokens.map((_, index) => index).slice(1).sort((a, b) => tokens[a].logprob - tokens[b].logprob).slice(0, WORST);
    worst.replaceChildren(...order.map((index) => el("li", {}, place(tokens, index))));
    table.replaceChildren(pieces(tokens));
    results.hidden = false;
  }

  /** A surprising token with what stands around it; leads to its place. */
  function place(tokens, index) {
    const join = (from, to) => textOf(tokens.slice(Math.max(1, from), to)).replaceAll("\n", "↵");
    const go = () => {
      view.select(index, { focus: true });
      showToken(index, tokens[index]);
    };
    const link = button("", go, { class: "place" });
    link.append(el("span", { class: "soft", text: join(index - AROUND, index) }), el("mark", { text: visibleLine(tokens[index]) }), el("span", { class: "soft", text: join(index + 1, index + 1 + AROUND) }));
    return [link, el("small", { text: MEASURES.surprise.text(MEASURES.surprise.of(tokens[index])) })];
  }

  function pieces(tokens) {
    const rows = tokens.slice(0, MOST_ROWS).map((token, n) => el("tr", {},
      el("td", { text: String(n) }), el("td", {}, el("code", { text: visibleLine(token) })), el("td", { text: String(token.id) }),
      el("td", {}, el("code", { text: token.bytes.match(/../g)?.join(" ") ?? "" })),
      el("td", { text: token.logprob === null ? "" : bits(-token.logprob).toFixed(2) }), el("td", { text: token.rank ?? "" })));
    const heads = ["Place", "Piece", "Id", "Bytes", "Surprise (bits)", "Rank"].map((name) => el("th", { scope: "col", text: name }));
    const more = tokens.length > MOST_ROWS ? `, the first ${whole(MOST_ROWS)}` : "";
    return el("details", {}, el("summary", { text: `Pieces, ids and bytes of ${whole(tokens.length)} tokens${more}` }),
      scrolling("Pieces, ids and bytes",
        el("table", {}, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, rows))));
  }

  function showToken(index, token) {
    detail.replaceChildren(tokenDetail(token, { vocabulary: served.model.vocab_size }));
  }

  function keys(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) read();
  }

  return { node };
}
