// Starts the page: asks what is served, and makes a tab for each view that fits.

import { getJson } from "./api.js";
import { chatView } from "./chat.js";
import { classifyView } from "./classify.js";
import { compareView } from "./compare.js";
import { el, whole } from "./dom.js";
import { lensView } from "./lens.js";
import { readView } from "./read.js";
import { saveButton } from "./save.js";
import { watchView } from "./watch.js";
import { writeView } from "./write.js";

const SECONDS_BETWEEN_TRIES = 2;

async function start() {
  const title = document.getElementById("title");
  let served;
  for (;;) {
    try {
      const [facts, models] = await Promise.all([getJson("v1/run"), getJson("v1/models")]);
      served = { ...facts, name: models.data[0].id };
      break;
    } catch (error) {
      title.textContent = error.status === 503 ? "Loading the model …" : error.message;
      if (error.status !== 503 && error.status !== 0) return;
      await new Promise((resolve) => setTimeout(resolve, 1000 * SECONDS_BETWEEN_TRIES));
    }
  }
  const { model, run } = served;
  served.example = run?.sample_prompts.find(Boolean) ?? "The";
  title.textContent = served.name;
  document.title = `${served.name} · acorn playground`;
  const step = model.step ? ` · step ${whole(model.step)}` : "";
  document.getElementById("facts").textContent =
    `${whole(model.parameters)} parameters · ${model.n_layer} layer${model.n_layer > 1 ? "s" : ""} · context ${whole(model.block_size)} · vocabulary ${whole(model.vocab_size)}${step}`;
  const isLanguage = !model.task || ["chat", "complete"].includes(model.task);
  const canCompare = isLanguage && Object.values(served.runs).some((checkpoints) => checkpoints.length);
  const views = [
    isLanguage && ["Write", writeView],
    isLanguage && ["Read", readView],
    isLanguage && ["Look inside", lensView],
    run && ["Watch", watchView],
    canCompare && ["Compare", compareView],
    model.has_chat && ["Chat", chatView],
    !isLanguage && ["Classify", classifyView],
  ].filter(Boolean);
  tabs(views, served);
}

/** Tabs as the ARIA practices have them: arrows move, Home and End jump; the address remembers the view. */
function tabs(views, served) {
  const list = document.getElementById("tabs");
  const panels = document.getElementById("panels");
  const made = views.map(([name, build], index) => {
    const key = name.toLowerCase().replaceAll(" ", "-");
    const panel = el("section", { role: "tabpanel", id: `panel-${key}`, "aria-labelledby": `tab-${key}`, hidden: true });
    const tab = el("button", {
      type: "button", role: "tab", id: `tab-${key}`, "aria-controls": panel.id, "aria-selected": "false", tabindex: "-1",
      text: name, on: { click: () => open(index), keydown: (event) => move(event, index) },
    });
    list.append(tab);
    panels.append(panel);
    return { name, key, build, tab, panel, view: null };
  });
  let current = -1;

  function open(index, { focus = false } = {}) {
    made[current]?.view?.hide?.();
    current = index;
    made.forEach(({ tab, panel }, n) => {
      tab.setAttribute("aria-selected", String(n === index));
      tab.tabIndex = n === index ? 0 : -1;
      panel.hidden = n !== index;
    });
    const { name, key, tab, panel, build } = made[index];
    if (!made[index].view) {
      made[index].view = build(served);
      panel.append(made[index].view.node, el("p", { class: "actions end", "data-unsaved": true }, saveButton(name, made[index].view.node, served)));
    }
    made[index].view.show?.();
    history.replaceState(null, "", `#${key}`);
    if (focus) tab.focus();
    tab.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  function move(event, index) {
    const last = made.length - 1;
    const to = { ArrowRight: index === last ? 0 : index + 1, ArrowLeft: index ? index - 1 : last, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    open(to, { focus: true });
  }

  open(Math.max(0, made.findIndex(({ key }) => location.hash === `#${key}`)));
}

start();
