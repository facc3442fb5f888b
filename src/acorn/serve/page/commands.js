// The same text from elsewhere: as curl, as Python with OpenAI's client, and as an acorn command.

import { button, el } from "./dom.js";

const shellQuoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** JSON's escapes are Python's too. */
const pythonQuoted = JSON.stringify;

export function commandsFor({ served, prompt, settings, origin }) {
  const { temperature, top_k, top_p, min_p, max_tokens, seed } = settings;
  const body = { model: served.name, prompt, max_tokens, temperature, top_k, top_p, min_p, seed };
  const folder = served.run?.folder ?? served.model.folder;
  return {
    curl: `curl ${shellQuoted(`${origin}/v1/completions`)} \\\n  -H 'Content-Type: application/json' \\\n  -d ${shellQuoted(JSON.stringify(body))}`,
    Python: [
      "from openai import OpenAI",
      "",
      `client = OpenAI(base_url=${pythonQuoted(`${origin}/v1`)}, api_key="the server's key, or any text")`,
      "completion = client.completions.create(",
      `    model=${pythonQuoted(served.name)},`,
      `    prompt=${pythonQuoted(prompt)},`,
      `    max_tokens=${max_tokens}, temperature=${temperature}, top_p=${top_p}, seed=${seed},`,
      `    extra_body={"top_k": ${top_k}, "min_p": ${min_p}},`,
      ")",
      "print(completion.choices[0].text)",
    ].join("\n"),
    acorn: `acorn generate ${shellQuoted(folder)} --prompt ${shellQuoted(prompt)} --max-new-tokens ${max_tokens} \\\n  --temperature ${temperature} --top-k ${top_k} --top-p ${top_p} --min-p ${min_p} --seed ${seed}`,
  };
}

/** The commands, each with a button that copies it. `now()` gives what they are made from. */
export function elsewhere(now) {
  const body = el("div");
  const draw = () => {
    const origin = location.href.replace(/\/?(index\.html)?([?#].*)?$/, "");
    body.replaceChildren(...Object.entries(commandsFor({ ...now(), origin })).map(([name, text]) => {
      const copied = el("span", { role: "status", class: "soft" });
      const copy = async () => {
        try {
          await navigator.clipboard.writeText(text);
          copied.textContent = "Copied.";
        } catch {
          getSelection().selectAllChildren(block); // without HTTPS, browsers offer no clipboard
          copied.textContent = "Selected: press Ctrl+C.";
        }
      };
      const block = el("pre", { tabindex: "0", "aria-label": `As ${name}`, text });
      return el("div", { class: "command" }, el("h3", { text: name }), button(`Copy as ${name}`, copy, { class: "small" }), copied, block);
    }));
  };
  const details = el("details", { "data-unsaved": true, on: { toggle: () => details.open && draw() } }, el("summary", { text: "Use these settings elsewhere" }), body);
  return details;
}
