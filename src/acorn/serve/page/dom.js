// Builds elements. Text of users and of the model only ever becomes a text node, so no prompt can become markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element. Properties: `class`, `text`, `on` (event -> listener), `css` (custom property or style -> value, set
 * through the CSSOM, which a strict content security policy allows), and attributes; false and null leave one out.
 */
export function el(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

/** The same in SVG. */
export function svg(tag, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), properties, children);
}

function filled(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") node.textContent = value;
    else if (name === "on") for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    else if (name === "css") for (const [key, rule] of Object.entries(value)) node.style.setProperty(key, rule);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

let count = 0;

/** An id that no other element has. */
export const freshId = (stem) => `${stem}-${++count}`;

/** A control with its label above it, and a hint below. */
export function labelled(text, control, hint = "") {
  control.id ||= freshId("field");
  const note = hint && el("small", { id: `${control.id}-hint`, text: hint });
  if (note) control.setAttribute("aria-describedby", note.id);
  return el("div", { class: "field" }, el("label", { for: control.id, text }), control, note);
}

export const button = (text, action, properties = {}) =>
  el("button", { type: "button", text, on: { click: action }, ...properties });

export const soft = (text) => el("p", { class: "soft", text });

/** A row of buttons, which a saved page leaves out. */
export const actions = (...buttons) => el("p", { class: "actions", "data-unsaved": true }, buttons);

/** A part that scrolls sideways, by keyboard too. */
export const scrolling = (label, ...children) =>
  el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, children);

/** Where a panel says what went wrong, or what it does. Screen readers read it out. */
export function notice() {
  const node = el("p", { class: "notice", role: "status", hidden: true });
  return {
    node,
    say(text, isError = false) {
      node.textContent = text;
      node.hidden = !text;
      node.classList.toggle("error", isError);
    },
    fail(error) {
      if (error.name !== "AbortError") this.say(error.message, true);
    },
  };
}

/** Figures with their names and notes, in tiles. */
export const tilesOf = (figures) => figures.map(([name, value, note]) =>
  el("div", {}, el("dt", { text: name }), el("dd", {}, value, note && el("small", { text: note }))));

/** Calls `action` once nothing was asked for `milliseconds`. */
export function debounced(action, milliseconds) {
  let timer;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...values), milliseconds);
  };
}

export const whole = (n) => n.toLocaleString("en-US");
export const percent = (p) => (p >= 0.9995 || p === 0 ? `${(100 * p).toFixed(0)} %` : p >= 0.0995 ? `${(100 * p).toFixed(1)} %` : `${(100 * p).toPrecision(2)} %`);
