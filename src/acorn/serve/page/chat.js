// Chat: for models with a chat template.

import { events } from "./api.js";
import { actions, button, el, labelled, notice, soft } from "./dom.js";
import { samplingSettings } from "./settings.js";

const NAMES = { system: "System", user: "You", assistant: "Model" };

export function chatView(served) {
  let messages = [], running = null;
  const log = el("div", { class: "log", role: "log", "aria-label": "Conversation", tabindex: "0" });
  const system = el("input", { type: "text" });
  const input = el("textarea", { rows: 3, on: { keydown: keys } });
  const settings = samplingSettings(() => {}, { tokens: 0 });
  const message = notice();
  const send = button("Send", ask, { class: "primary" });
  const stop = button("Stop", () => running?.abort(), { disabled: true });
  const node = el("div", { class: "columns" },
    el("div", {}, labelled("System message (optional)", system), log, message.node,
      labelled("Your message", input, "Enter sends it, Shift+Enter begins a new line, Escape stops."),
      actions(send, stop, button("New conversation", clear))),
    el("div", {}, settings.node));

  async function ask() {
    const text = input.value.trim();
    if (!text || running) return;
    input.value = "";
    add("user", text);
    const answer = add("assistant", "");
    running = new AbortController();
    [send.disabled, stop.disabled] = [true, false];
    message.say("");
    const asked = messages.slice(0, -1).map(({ role, content }) => ({ role, content }));
    const rules = system.value.trim() ? [{ role: "system", content: system.value }] : [];
    try {
      const body = { model: served.name, messages: [...rules, ...asked], ...settings.values(), stream: true };
      for await (const data of events("v1/chat/completions", body, running.signal)) {
        answer.content += data.choices?.[0]?.delta?.content ?? "";
        answer.node.textContent = answer.content;
        log.scrollTop = log.scrollHeight;
      }
      if (!answer.content) message.say("The model answered with nothing.");
    } catch (error) {
      message.fail(error);
      if (!answer.content) messages.pop().row.remove();
    } finally {
      running = null;
      [send.disabled, stop.disabled] = [false, true];
      input.focus();
    }
  }

  function add(role, content) {
    const text = el("p", { class: "text", text: content });
    const row = el("div", { class: `said ${role}` }, soft(NAMES[role]), text);
    log.append(row);
    log.scrollTop = log.scrollHeight;
    messages.push({ role, content, node: text, row });
    return messages.at(-1);
  }

  function clear() {
    running?.abort();
    messages = [];
    log.replaceChildren();
    input.focus();
  }

  function keys(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) ask();
    else if (event.key === "Escape") running?.abort();
    else return;
    event.preventDefault();
  }

  return { node };
}
