// The sampling settings, with acorn's own defaults.

import { el, freshId } from "./dom.js";

const SLIDERS = [
  ["temperature", "Temperature", 0, 2, 0.05, 0.8, "0: always the most likely token"],
  ["top_k", "Top-k", 0, 200, 1, 50, "0: all tokens"],
  ["top_p", "Top-p", 0.05, 1, 0.01, 1, "1: all tokens"],
  ["min_p", "Min-p", 0, 0.9, 0.01, 0, "0: all tokens"],
];

/** Controls; `values()` returns their values, with a seed drawn if none is given. `tokens`: 0: without a length. */
export function samplingSettings(change = () => {}, { tokens = 80, most = 512 } = {}) {
  const controls = SLIDERS.map(([key, name, min, max, step, value, hint]) => {
    const id = freshId(key);
    const output = el("output", { for: id, text: value });
    const input = el("input", { type: "range", id, min, max, step, value, "aria-describedby": `${id}-hint` });
    input.addEventListener("input", () => {
      output.textContent = input.value;
      change();
    });
    const node = el("div", { class: "slider" }, el("label", { for: id, text: name }), output, input, el("small", { id: `${id}-hint`, text: hint }));
    return { key, input, node };
  });
  const length = number("max_tokens", "New tokens", { value: tokens, min: 1, max: most });
  const seed = number("seed", "Seed", { min: 0, max: 2 ** 31 - 1, placeholder: "random" });
  const node = el("fieldset", { class: "settings" }, el("legend", { text: "Sampling" }),
    controls.map((control) => control.node), el("div", { class: "pair" }, tokens > 0 && length.node, seed.node));
  const read = (input, fallback) => {
    const value = Math.round(Number(input.value));
    return input.value === "" || !Number.isFinite(value) ? fallback : Math.min(Number(input.max), Math.max(Number(input.min), value));
  };
  return {
    node,
    distribution: () => Object.fromEntries(controls.map(({ key, input }) => [key, Number(input.value)])),
    values() {
      return { ...this.distribution(), ...(tokens && { max_tokens: read(length.input, tokens) }), seed: read(seed.input, Math.floor(Math.random() * 2 ** 31)) };
    },
  };
}

function number(key, name, properties) {
  const id = freshId(key);
  const input = el("input", { type: "number", id, inputmode: "numeric", ...properties });
  return { input, node: el("div", { class: "field" }, el("label", { for: id, text: name }), input) };
}
