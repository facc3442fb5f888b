// Classify: what a finetuned model says of texts, one a line.

import { postJson } from "./api.js";
import { bar } from "./detail.js";
import { actions, button, el, labelled, notice } from "./dom.js";

export function classifyView(served) {
  const text = el("textarea", { rows: 6, placeholder: "One text a line" });
  const message = notice();
  const results = el("div");
  const node = el("div", {},
    labelled("Texts, one a line", text, served.model.labels.length ? `Labels: ${served.model.labels.join(", ")}` : ""),
    actions(button("Ask the model", ask, { class: "primary" })),
    message.node, results);

  async function ask() {
    const lines = text.value.split("\n").filter((line) => line.trim());
    if (!lines.length) return message.say("Type a text first.");
    message.say("Asking the model …");
    try {
      const found = await postJson("v1/classify", { model: served.name, input: lines });
      results.replaceChildren(...found.results.map((result, n) => answer(result, lines[n])));
      message.say("");
    } catch (error) {
      message.fail(error);
    }
  }

  function answer(result, line) {
    const said = result.label ?? result.labels ?? result.value;
    const title = Array.isArray(said) ? said.join(", ") || "no label" : typeof said === "number" ? said.toPrecision(5) : said;
    const shares = Object.entries(result.tags ? {} : result.probabilities ?? {}).sort((a, b) => b[1] - a[1]);
    const tags = result.tags && el("p", { class: "tags" }, result.tokens.map((token, n) => [el("span", { text: token }), result.tags[n] !== "O" && el("b", { text: result.tags[n] }), " "]));
    return el("section", { class: "card" }, el("p", { class: "text", text: result.text ?? line }), title !== undefined && el("h3", { text: title }), tags || null,
      el("ol", { class: "bars" }, shares.map(([piece, p]) => bar({ piece, p, width: p, isCurrent: piece === said }))));
  }

  return { node };
}
