// Watch: the curve and the samples of a run, live while it trains; and the film of one prompt over its checkpoints.

import { events, getJson } from "./api.js";
import { curve } from "./curve.js";
import { el, notice, soft, tilesOf, whole } from "./dom.js";
import { filmView } from "./film.js";

const SECONDS_BEFORE_RETRY = 5;
const MOST_POINTS = 1200;

export function watchView(served) {
  let run = served.run, following = null;
  const message = notice();
  const tiles = el("dl", { class: "tiles" });
  const figure = el("figure");
  const samples = el("div");
  const film = filmView(served);
  const node = el("div", {},
    message.node, tiles, figure,
    el("h2", { text: "Film" }), film.node,
    el("h2", { text: "Samples" }), samples);

  const actions = {
    train: (points) => (run.train = thinned([...run.train, ...points])),
    valid: (points) => run.valid.push(...points),
    samples: (found) => (run.samples = [...run.samples, ...found].slice(-60)),
    checkpoints: (steps) => film.setSteps((run.checkpoints = steps)),
    finished: (value) => (run.is_finished = value),
  };

  /** Asks for all facts, then follows what is new, until the view is closed. A lost connection begins again. */
  async function follow({ signal }) {
    while (!signal.aborted) {
      let seconds = SECONDS_BEFORE_RETRY;
      try {
        run = (await getJson("v1/run", signal)).run;
        film.setSteps(run.checkpoints);
        message.say("");
        draw();
        const { metrics, samples: texts } = run.offsets;
        for await (const news of events(`v1/run/events?metrics=${metrics}&samples=${texts}`, null, signal)) {
          if (news.restart) seconds = 0;
          for (const [name, value] of Object.entries(news)) actions[name]?.(value);
          if (Object.keys(news).length) draw();
        }
      } catch (error) {
        message.fail(error);
      }
      await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
    }
  }

  /** Every second point, once there are many. */
  const thinned = (points) => (points.length > MOST_POINTS ? points.filter((_, n) => (points.length - n) % 2) : points);

  function draw() {
    const last = run.train.at(-1) ?? {}, valid = run.valid.at(-1) ?? {};
    const hasBits = run.valid.concat(run.train).some((point) => Number.isFinite(point.bits_per_byte));
    const key = hasBits ? "bits_per_byte" : "loss";
    const name = hasBits ? "bits per byte" : "loss (nats per token)";
    const facts = [
      ["Step", whole(Math.max(last.step ?? 0, valid.step ?? 0)), run.is_finished ? "finished" : "not finished"],
      [`Validation, ${name}`, valid[key]?.toFixed(3) ?? "–", valid.step ? `at step ${whole(valid.step)}` : ""],
      [`Training, ${name}`, last[key]?.toFixed(3) ?? "–", ""],
      ["Tokens read", whole(last.tokens ?? 0), last.tokens_per_second ? `${whole(Math.round(last.tokens_per_second))} a second` : ""],
    ];
    tiles.replaceChildren(...tilesOf(facts));
    const line = (points) => points.map((point) => [point.step, point[key]]);
    figure.replaceChildren(
      el("figcaption", {}, el("span", { class: "key c0", text: "Training" }), el("span", { class: "key c1", text: "Validation" })),
      curve([{ points: line(run.train), style: "raw" }, { points: line(run.valid), style: "points" }],
        { x: "step", y: name, label: `Training and validation: ${name} over steps. Validation is now ${valid[key]?.toFixed(3) ?? "unknown"}.` }));
    const newest = run.samples.slice(-12).reverse();
    samples.replaceChildren(...(newest.length ? newest.map(sample) : [soft("No samples yet.")]));
  }

  function sample({ step, prompt, text }) {
    return el("div", { class: "sample" }, el("p", { class: "when soft", text: `Step ${whole(step)}` }),
      el("p", { class: "text" }, prompt && el("mark", { text: prompt }), text));
  }

  draw();
  return {
    node,
    show() {
      following = new AbortController();
      follow(following);
    },
    hide() {
      following?.abort();
    },
  };
}
