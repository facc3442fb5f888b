// Compare: two checkpoints or runs on the same prompt and seed, and where they differ.

import { postJson } from "./api.js";
import { actions, button, el, labelled, notice, soft } from "./dom.js";
import { bits } from "./measures.js";
import { samplingSettings } from "./settings.js";
import { TokenView } from "./tokens.js";

export function compareView(served) {
  const choices = Object.entries(served.runs).flatMap(([run, checkpoints]) => checkpoints.map((checkpoint) => ({ run, checkpoint, name: `${run}, ${checkpoint === "final" ? "final model" : `step ${checkpoint}`}` })));
  const chooser = (chosen) => el("select", {}, choices.map(({ name }, n) => el("option", { value: n, selected: n === chosen, text: name })));
  const [left, right] = [chooser(0), chooser(choices.length - 1)];
  const prompt = el("textarea", { rows: 3, spellcheck: "false" });
  prompt.value = served.example;
  const settings = samplingSettings(() => {}, { tokens: 60, most: 256 });
  const message = notice();
  const results = el("div", { class: "sides" });
  const summary = el("p");
  const run = button("Compare", compare, { class: "primary" });
  const node = el("div", { class: "columns" },
    el("div", {},
      el("div", { class: "pair" }, labelled("First model", left), labelled("Second model", right)),
      labelled("Prompt", prompt),
      actions(run),
      message.node, summary, results),
    el("div", {}, settings.node));

  async function compare() {
    run.disabled = true;
    message.say("Loading both models …");
    const side = (select) => (({ run: name, checkpoint }) => ({ run: name, checkpoint }))(choices[select.value]);
    const values = settings.values();
    try {
      const found = await postJson("v1/compare", { prompt: prompt.value, left: side(left), right: side(right), ...values });
      show(found, [left, right].map((select) => choices[select.value].name), values.seed);
      message.say("");
    } catch (error) {
      message.fail(error);
    } finally {
      run.disabled = false;
    }
  }

  function show(found, names, seed) {
    summary.replaceChildren(found.same_tokenizer
      ? `Seed ${seed}. Blue: the model above the text found the token more likely than the other did; orange: less likely.`
      : `Seed ${seed}. The models have different tokenizers, so their tokens cannot be compared one by one.`);
    results.replaceChildren(...found.sides.map((side, n) => column(side, names[n], names[1 - n], found.same_tokenizer)));
  }

  function column(side, name, other, same) {
    const view = new TokenView({ label: `The text of ${name}`, choose: (_, token) => detail.replaceChildren(scores(token, name, other)) });
    const detail = el("div", { class: "card" }, soft("Choose a token to see its scores."));
    const gain = (token) => bits(token.logprob - token.other); // above 0: this model found it more likely
    const heat = (token) => (Number.isFinite(token.other) && token.logprob !== null ? { [gain(token) >= 0 ? "--cold" : "--heat"]: Math.min(1, Math.abs(gain(token)) / 6) } : {});
    const hint = (token) => (Number.isFinite(token.other) && token.logprob !== null ? `${gain(token) >= 0 ? "+" : ""}${gain(token).toFixed(2)} bits against the other model` : "no score");
    view.show(side.tokens, { from: side.prompt_tokens, ...(same ? { heat, hint } : {}) });
    const total = (key, from, to) => bits(-side.tokens.slice(from, to).reduce((sum, token) => sum + (token[key] ?? 0), 0));
    const lines = [["prompt", 1, side.prompt_tokens], ["new text", side.prompt_tokens, undefined]].map(([what, from, to]) =>
      el("li", { text: `${what}: ${total("logprob", from, to).toFixed(1)} bits${same ? `; under the other model ${total("other", from, to).toFixed(1)}` : ""}` }));
    return el("div", {}, el("h3", { text: name }), el("ul", { class: "soft" }, lines), view.node, detail);
  }

  function scores(token, name, other) {
    const text = (value) => (Number.isFinite(value) ? `${bits(-value).toFixed(2)} bits` : "none");
    return el("dl", { class: "facts" }, [["Token", token.piece], [name, text(token.logprob)], [other, text(token.other)]].map(([key, value]) => [el("dt", { text: key }), el("dd", { text: value })]));
  }

  return { node };
}
