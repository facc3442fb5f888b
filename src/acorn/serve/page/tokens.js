// A text as its tokens, colored by a measure. One token is in the tab order; arrow keys move between tokens.

import { el, freshId } from "./dom.js";
import { MEASURES, heatOf, visible, visibleLine } from "./measures.js";

export class TokenView {
  /** `choose(index, token)` is called when a token is clicked, or Enter or Space is pressed on it. */
  constructor({ label, choose = () => {} }) {
    this.choose = choose;
    this.node = el("div", { class: "tokens", role: "group", "aria-label": label, on: { keydown: (event) => this.#key(event) } });
    this.measure = MEASURES.surprise;
    this.shown = [];
    this.selected = -1;
  }

  /** Tokens from `from` on are marked as new. `heat` and `hint` replace the measure's. */
  show(tokens, { from = tokens.length, heat = null, hint = null } = {}) {
    this.shown = tokens;
    this.options = { from, heat, hint };
    this.selected = Math.min(this.selected, tokens.length - 1);
    this.node.replaceChildren(...tokens.map((token, index) => this.#span(token, index)));
  }

  /** Adds one token, as a text streams in, without drawing the others again. */
  add(token) {
    this.shown.push(token);
    this.node.append(this.#span(token, this.shown.length - 1));
  }

  colorBy(name) {
    this.measure = MEASURES[name];
    this.show(this.shown, this.options);
  }

  select(index, { focus = false } = {}) {
    this.node.children[this.selected]?.classList.remove("selected");
    this.node.querySelectorAll("[tabindex='0']").forEach((node) => node.setAttribute("tabindex", "-1"));
    this.selected = index;
    const node = this.node.children[index];
    if (!node) return;
    node.classList.add("selected");
    node.setAttribute("tabindex", "0");
    if (focus) node.focus();
  }

  #span(token, index) {
    const { from, heat, hint } = this.options ?? { from: 0 };
    const value = this.measure.of(token);
    const said = hint ? hint(token) : value === null ? "the beginning" : `${this.measure.name} ${this.measure.text(value)}`;
    const strength = heat ? heat(token) : { "--heat": heatOf(this.measure, token) };
    const isFirst = index === Math.max(0, this.selected);
    return el("span", {
      class: `token${index >= from ? " new" : ""}${index === this.selected ? " selected" : ""}`,
      role: "button",
      tabindex: isFirst ? "0" : "-1",
      "aria-label": `${visibleLine(token)}, ${said}`,
      title: `${visibleLine(token)} · ${said}`,
      css: strength,
      text: visible(token),
      on: { click: () => this.#chosen(index) },
    });
  }

  #chosen(index) {
    this.select(index);
    this.choose(index, this.shown[index]);
  }

  #key(event) {
    const index = [...this.node.children].indexOf(event.target);
    if (index < 0) return;
    const last = this.shown.length - 1;
    const to = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: last }[event.key];
    if (to !== undefined) {
      this.select(Math.min(last, Math.max(0, to)), { focus: true });
    } else if (event.key === "Enter" || event.key === " ") {
      this.#chosen(index);
    } else {
      return;
    }
    event.preventDefault();
  }
}

/** Radio buttons for what tokens are colored by, with a legend. */
export function measureChoice(change) {
  const group = freshId("measure");
  const legend = el("span", { class: "legend" });
  const describe = (measure) => legend.replaceChildren(measure.low, el("i", { class: "ramp", "aria-hidden": "true" }), measure.high);
  const radios = Object.entries(MEASURES).map(([key, measure], index) => {
    const id = freshId("measure");
    const pick = () => {
      describe(measure);
      change(key);
    };
    return el("span", { class: "radio" },
      el("input", { type: "radio", id, name: group, checked: index === 0, on: { change: pick } }),
      el("label", { for: id, text: measure.name }));
  });
  describe(MEASURES.surprise);
  return el("fieldset", { class: "measures", "data-unsaved": true }, el("legend", { text: "Color by" }), radios, legend);
}
