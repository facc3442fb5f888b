// The film: one prompt under every checkpoint, colored by surprise, with a slider.

import { events } from "./api.js";
import { curve } from "./curve.js";
import { tokenDetail } from "./detail.js";
import { button, el, freshId, labelled, notice, soft, whole } from "./dom.js";
import { bits } from "./measures.js";
import { TokenView, measureChoice } from "./tokens.js";

const SECONDS_PER_FRAME = 0.8;

export function filmView(served) {
  let frames = [], running = null, timer = null;
  const prompt = el("input", { type: "text", value: served.example, spellcheck: "false" });
  const message = notice();
  const view = new TokenView({ label: "The prompt and how it goes on, token by token", choose: (index, token) => detail.replaceChildren(tokenDetail(token, { vocabulary: served.model.vocab_size })) });
  const detail = el("div", { class: "card" });
  const id = freshId("frame");
  const slider = el("input", { type: "range", id, min: 0, max: 0, value: 0, on: { input: draw } });
  const step = el("output", { for: id });
  const figure = el("figure");
  const play = button("Play", toggle);
  const hint = el("small", { text: keptHint(served.run.checkpoints) });
  const screen = el("div", { hidden: true },
    el("div", { class: "slider wide" }, el("label", { for: id, text: "Checkpoint" }), step, slider, play),
    measureChoice((name) => view.colorBy(name)), view.node, detail, figure);
  const make = el("form", { class: "row", "data-unsaved": true, on: { submit: start } }, labelled("Prompt of the film", prompt), el("button", { type: "submit", class: "primary", text: "Make the film" }));
  const node = el("div", {}, make, hint, message.node, screen);

  function keptHint(steps) {
    return `${whole(steps.length)} ${steps.length === 1 ? "checkpoint is" : "checkpoints are"} on disk. A run keeps more of them with checkpoint.keep=20.`;
  }

  async function start(event) {
    event.preventDefault();
    running?.abort();
    running = new AbortController();
    stopPlaying();
    frames = [];
    screen.hidden = true;
    message.say("Loading the checkpoints …");
    const skipped = [];
    try {
      for await (const { frame, skipped: one } of events("v1/film", { prompt: prompt.value }, running.signal)) {
        if (frame) add(frame);
        if (one) skipped.push(`${one.checkpoint}: ${one.reason}`);
      }
      message.say(skipped.length ? `Left out: ${skipped.join(" ")}` : "");
    } catch (error) {
      message.fail(error);
    }
  }

  function add(frame) {
    frames.push(frame);
    slider.max = String(frames.length - 1);
    slider.value = slider.max;
    screen.hidden = false;
    message.say(`${whole(frames.length)} checkpoints …`);
    draw();
  }

  function draw() {
    const at = Number(slider.value), frame = frames[at];
    const name = nameOf(frame);
    step.textContent = name;
    slider.setAttribute("aria-valuetext", name);
    view.show([...frame.tokens, ...frame.added], { from: frame.tokens.length });
    detail.replaceChildren(soft("Underlined: how it goes on if it always takes the most likely token."));
    const points = frames.map((one, n) => [stepOf(one, n), mean(one.tokens)]);
    figure.replaceChildren(...(frames.length > 1 ? [curve([{ points, style: "points" }], { x: "step", y: "bits per token of the prompt", marks: [points[at][0]], label: `Mean surprise of the prompt over the checkpoints: now ${points[at][1].toFixed(2)} bits per token.` })] : []));
  }

  const nameOf = ({ checkpoint }) => (checkpoint === "final" ? "final model" : `step ${whole(Number(checkpoint))}`);
  const stepOf = ({ checkpoint }, n) => (checkpoint === "final" ? (n ? Number(frames[n - 1].checkpoint) : 0) : Number(checkpoint));
  const mean = (tokens) => (tokens.length < 2 ? 0 : bits(-tokens.slice(1).reduce((sum, token) => sum + token.logprob, 0)) / (tokens.length - 1));

  function toggle() {
    if (timer) return stopPlaying();
    play.textContent = "Pause";
    timer = setInterval(() => {
      slider.value = String((Number(slider.value) + 1) % frames.length);
      draw();
    }, 1000 * SECONDS_PER_FRAME);
  }

  function stopPlaying() {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  }

  return { node, setSteps: (steps) => (hint.textContent = keptHint(steps)) };
}
