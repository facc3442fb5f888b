// Look inside: what the model would say after each layer at a place, and what its heads attend to.

import { postJson } from "./api.js";
import { actions, button, el, labelled, notice, percent, scrolling, soft, svg } from "./dom.js";
import { visibleLine } from "./measures.js";
import { TokenView } from "./tokens.js";

export function lensView(served) {
  let found = null, place = 0;
  const text = el("textarea", { rows: 2, spellcheck: "false" });
  text.value = served.example;
  const message = notice();
  const view = new TokenView({ label: "Tokens: choose the place to look at", choose: (index) => draw(index) });
  const layers = scrolling("After each layer");
  const layer = el("select", { on: { change: arcs } });
  const head = el("select", { on: { change: arcs } });
  const drawing = scrolling("Attention");
  const results = el("div", { hidden: true }, view.node,
    el("h2", { text: "After each layer" }), soft("The most likely next token after the chosen place if the model ended at that layer (logit lens)."), layers,
    el("h2", { text: "Attention" }), el("div", { class: "pair" }, labelled("Layer", layer), labelled("Head", head)), drawing);
  const node = el("div", {},
    labelled("Text", text, "Up to 128 tokens."),
    actions(button("Look inside", look, { class: "primary" })), message.node, results);

  async function look() {
    message.say("Looking …");
    try {
      found = await postJson("v1/lens", { input: text.value, top: 5 });
      message.say("");
      results.hidden = false;
      const option = (name) => (_, n) => el("option", { value: n, text: `${name} ${n + 1}` });
      layer.replaceChildren(...found.layers.map(option("Layer")));
      head.replaceChildren(...found.layers[0].attention.map(option("Head")));
      view.show(found.tokens.map((token) => ({ ...token, bytes: "", logprob: null })), { hint: () => "look here" });
      draw(found.tokens.length - 1);
    } catch (error) {
      message.fail(error);
    }
  }

  function draw(index) {
    place = index;
    view.select(index);
    const rows = found.layers.map(({ next }, n) => el("tr", {}, el("th", { scope: "row", text: `Layer ${n + 1}` }),
      next[index].map(([, piece, logprob]) => el("td", { class: "shade", css: { "--heat": Math.exp(logprob) } }, el("code", { text: visibleLine({ piece, bytes: "" }) }), el("small", { text: percent(Math.exp(logprob)) })))));
    layers.replaceChildren(el("table", {}, el("tbody", {}, rows)));
    arcs();
  }

  /** Arcs from the chosen token back to those that it attends to; as wide as the weight. */
  function arcs() {
    const weights = found.layers[layer.value].attention[head.value][place];
    const [gap, base] = [46, 130];
    const at = (n) => 30 + n * gap;
    const arc = (n, weight) => {
      const reach = (at(place) - at(n)) / 2;
      return svg("path", { class: "arc", d: `M ${at(n)} ${base} A ${Math.max(reach, 8)} ${Math.max(8, Math.min(reach, 110))} 0 0 1 ${at(place) + (reach ? 0 : 1)} ${base}`, "stroke-width": (8 * weight).toFixed(2), "stroke-opacity": Math.max(0.15, weight).toFixed(2) });
    };
    const words = found.tokens.map((token, n) => svg("text", { x: at(n), y: base + 18, "text-anchor": "middle", class: n === place ? "here" : "tick", text: visibleLine(token).slice(0, 7) }));
    const most = weights.map((weight, n) => [weight, n]).sort((a, b) => b[0] - a[0]).slice(0, 3).map(([weight, n]) => `${visibleLine(found.tokens[n])} ${percent(weight)}`).join(", ");
    const width = at(found.tokens.length);
    const chart = svg("svg", { class: "arcs", viewBox: `0 0 ${width} 160`, width, height: 160, role: "img", "aria-label": `Attends most to ${most}` },
      weights.slice(0, place + 1).map((weight, n) => weight >= 0.01 && arc(n, weight)), words);
    drawing.replaceChildren(chart, soft(`Attends most to ${most}.`));
  }

  return { node };
}
