// Write: a text grows from a prompt; every token shows what else could have stood there, and can be branched from.

import { events, postJson } from "./api.js";
import { afterSettings } from "./distribution.js";
import { bar, tokenDetail } from "./detail.js";
import { actions, button, debounced, el, labelled, notice, percent, soft, whole } from "./dom.js";
import { elsewhere } from "./commands.js";
import { visibleLine } from "./measures.js";
import { samplingSettings } from "./settings.js";
import { TokenView, measureChoice } from "./tokens.js";
import { Tree } from "./tree.js";

const NEXT_TOP = 500;
const BARS = 20;
const FULL = "The context is full: the model cannot read more.";

/** A token of which only this is known yet. */
const unread = (id, piece, logprob = null) => ({ id, piece, bytes: "", logprob, entropy: null, rank: null, top: [] });

export function writeView(served) {
  const vocabulary = served.model.vocab_size;
  let tree = new Tree(), current = tree.root, next = null, running = null, asked = null;

  const prompt = el("textarea", { rows: 4, spellcheck: "false", placeholder: "Once upon a time" });
  const settings = samplingSettings(drawNext);
  const message = notice();
  const view = new TokenView({ label: "The text, token by token", choose: showToken });
  const detail = el("div", { class: "card", "aria-live": "polite" });
  const chart = el("ol", { class: "bars" });
  const chartNote = el("p", { class: "soft" });
  const branches = el("ul", { class: "tree" });
  const go = button("Continue the text", () => write(), { class: "primary" });
  const stop = button("Stop", () => running?.abort(), { disabled: true });
  const outside = elsewhere(() => ({ served, prompt: prompt.value, settings: settings.values() }));

  const node = el("div", { class: "columns", on: { keydown: keys } },
    el("div", {},
      labelled("Prompt", prompt, "Ctrl+Enter continues it, Escape stops."),
      actions(go, stop, button("Start over", startOver)),
      message.node,
      measureChoice((name) => view.colorBy(name)),
      view.node, detail,
      el("h2", { text: "Branches" }), branches, outside),
    el("div", {},
      settings.node,
      el("h2", { text: "Next token" }),
      soft("Bars: with these settings. Lines: without."),
      chart, chartNote));

  const typed = debounced(() => running || tree.text === prompt.value || readPrompt(), 350);
  prompt.addEventListener("input", typed);

  async function inspect(input, signal) {
    return postJson("v1/inspect", { input, kind: "prompt", top: 20, next_top: NEXT_TOP }, signal);
  }

  /** Begins a tree with the prompt's tokens. Resolves to whether it could be read. */
  async function readPrompt() {
    asked?.abort();
    asked = new AbortController();
    try {
      const text = prompt.value;
      const found = await inspect(text, asked.signal);
      tree = new Tree(found.tokens);
      tree.text = text;
      open(tree.root, found.next);
      message.say("");
      return true;
    } catch (error) {
      message.fail(error);
      return false;
    }
  }

  function startOver() {
    running?.abort();
    prompt.value = "";
    prompt.focus();
    readPrompt();
  }

  /** Shows a branch. Without `following`, the model is asked what it expects next. */
  function open(branch, following = null) {
    current = branch;
    view.selected = -1;
    view.show(tree.path(branch), { from: tree.start(branch) });
    detail.replaceChildren(soft("Choose a token to see what could have stood there."));
    drawTree();
    next = following;
    drawNext();
    if (!following) settle(branch);
  }

  /** Asks for all figures of a branch: a stream tells only some of them. */
  async function settle(branch) {
    asked?.abort();
    asked = new AbortController();
    try {
      const path = tree.path(branch);
      // Without ids, the text is cut into tokens again, which may be others.
      const isKnown = path.every((token) => token.id >= 0);
      const found = await inspect(isKnown ? path.map((token) => token.id) : path.slice(1).map((token) => token.piece).join(""), asked.signal);
      branch.tokens = found.tokens.slice(branch.at);
      if (current !== branch) return;
      const { selected } = view;
      view.show(found.tokens, { from: tree.start(branch) });
      if (selected >= 0) {
        view.select(selected);
        showToken(selected, found.tokens[selected]);
      }
      next = found.next;
      drawNext();
      drawTree();
    } catch (error) {
      message.fail(error);
    }
  }

  /** Continues the current branch, or a new one that has its first token. */
  async function write(branch = null) {
    if (running) return;
    running = new AbortController();
    const { signal } = running;
    [go.disabled, stop.disabled] = [true, false];
    try {
      if (!branch && tree.text !== prompt.value && !(await readPrompt())) return;
      const chosen = settings.values();
      const from = tree.path(branch ?? current);
      const target = branch ?? tree.branch(current, from.length);
      target.seed = chosen.seed;
      open(target, next ?? { top: [], rest: [], unsampled: 0 });
      message.say("Writing …");
      const why = await stream(target, from.map((token) => token.id), chosen, signal);
      message.say(why);
      await settle(target);
    } catch (error) {
      message.fail(error);
      if (error.name === "AbortError") {
        message.say("Stopped.");
        await settle(current);
      }
    } finally {
      running = null;
      [go.disabled, stop.disabled] = [false, true];
      drawNext(); // its rows can be chosen again
    }
  }

  /** Streams new tokens into a branch; returns why the text ended. */
  async function stream(target, ids, chosen, signal) {
    const rest = served.model.block_size + 1 - ids.length; // the last token is not read
    if (rest < 1) return FULL;
    const body = { model: served.name, prompt: ids, ...chosen, max_tokens: Math.min(rest, chosen.max_tokens), stream: true, logprobs: 5, return_token_ids: true };
    let ended = "";
    for await (const data of events("v1/completions", body, signal)) {
      const choice = data.choices?.[0];
      if (!choice) continue;
      const scores = choice.logprobs?.token_logprobs ?? [];
      const pieces = choice.logprobs?.tokens ?? [];
      const added = choice.token_ids ?? [];
      scores.forEach((logprob, n) => {
        const token = unread(added[n] ?? -1, pieces[n] ?? "", logprob);
        target.tokens.push(token);
        if (current === target) view.add(token);
      });
      ended = choice.finish_reason ?? ended;
    }
    return ended === "stop" ? "The model ended the text." : rest < chosen.max_tokens ? FULL : "";
  }

  function showToken(index, token) {
    const pick = running ? null : (id, piece) => branchAt(index, id, piece);
    detail.replaceChildren(tokenDetail(token, { vocabulary, loading: !token.top.length && index > 0, pick }));
  }

  function branchAt(index, id, piece) {
    const top = tree.path(current)[index].top.find((entry) => entry[0] === id);
    const token = unread(id, piece, top?.[2]);
    write(tree.branch(current, index, [token]));
  }

  function drawTree() {
    branches.replaceChildren(...[...tree.walk()].map(([branch, depth]) => {
      const words = branch.tokens.slice(0, 12).map((token) => token.piece).join("").replaceAll("\n", " ").trim();
      const name = branch.parent ? words || "(empty)" : `Prompt: ${words || "(empty)"}`;
      const note = branch.parent ? `from token ${whole(branch.at + 1)}, ${whole(branch.tokens.length)} tokens, seed ${branch.seed ?? "none"}` : `${whole(branch.tokens.length)} tokens`;
      return el("li", { css: { "--depth": String(depth) } },
        button(name, () => running || open(branch), { "aria-current": branch === current ? "true" : null, class: "branch" }),
        el("small", { text: note }));
    }));
  }

  function drawNext() {
    if (!next?.top.length) {
      chart.replaceChildren();
      chartNote.textContent = running ? "" : "Type a prompt to see what the model expects next.";
      return;
    }
    const after = afterSettings(next, settings.distribution());
    const shown = after.tokens.slice(0, BARS);
    const most = Math.max(...shown.map(({ p, raw }) => Math.max(p, raw)));
    chart.replaceChildren(...shown.map(({ id, piece, p, raw }) => bar({
      piece: visibleLine({ piece, bytes: "" }), p, width: p / most, mark: raw / most,
      action: running ? null : () => append(id, piece),
    })));
    const others = after.tokens.slice(BARS).reduce((sum, { p }) => sum + p, after.rest);
    const unsampled = next.unsampled > 0.0005 ? ` Never chosen, such as the unknown token: ${percent(next.unsampled)} of the model's own distribution.` : "";
    chartNote.textContent = `${whole(after.kept)} of ${whole(vocabulary)} tokens can be chosen; those not shown have ${percent(others)}.${unsampled}`;
  }

  /** Adds a token of the chart to the text, as a branch. */
  function append(id, piece) {
    const top = next.top.find((entry) => entry[0] === id);
    open(tree.branch(current, tree.path(current).length, [unread(id, piece, top[2])]));
  }

  function keys(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) write();
    else if (event.key === "Escape" && running) running.abort();
    else return;
    event.preventDefault();
  }

  readPrompt();
  return { node };
}
