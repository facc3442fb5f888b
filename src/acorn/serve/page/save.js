// Saves what a view shows as one HTML file that needs nothing outside it: no script, its style inside.

import { button, el } from "./dom.js";

const POLICY = "default-src 'none'; style-src 'unsafe-inline'";

export function saveButton(name, node, served) {
  return button("Save as one HTML file", async () => {
    const style = await (await fetch("page/style.css")).text();
    const file = new Blob([page(name, node, served, style)], { type: "text/html" });
    const link = el("a", { href: URL.createObjectURL(file), download: `${served.name.replace(/[^\w.-]+/g, "-")}-${name.toLowerCase().replaceAll(" ", "-")}.html` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  });
}

/** The text of the file. */
export function page(name, node, served, style) {
  const title = `${served.name}: ${name} · acorn`;
  const saved = document.implementation.createHTMLDocument(title);
  saved.documentElement.lang = "en";
  const make = (tag, attributes) => {
    const made = saved.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  saved.head.prepend(make("meta", { charset: "utf-8" }));
  saved.head.append(make("meta", { "http-equiv": "Content-Security-Policy", content: POLICY }), make("meta", { name: "viewport", content: "width=device-width, initial-scale=1" }));
  const rules = make("style", {});
  rules.textContent = style;
  saved.head.append(rules);
  const header = make("header", {});
  const heading = make("h1", {});
  heading.textContent = `${served.name}: ${name}`;
  const facts = make("p", { class: "soft" });
  facts.textContent = `${document.getElementById("facts").textContent} · saved ${new Date().toISOString().slice(0, 16).replace("T", " ")} UTC`;
  header.append(heading, facts);
  const main = make("main", {});
  main.append(still(node, saved));
  saved.body.append(header, main);
  return `<!doctype html>\n${saved.documentElement.outerHTML}\n`;
}

/** A copy of what is shown, in which nothing can be pressed: controls become their values. */
function still(node, saved) {
  const copy = saved.importNode(node, true);
  const controls = [...node.querySelectorAll("input, textarea, select")];
  [...copy.querySelectorAll("input, textarea, select")].forEach((control, n) => {
    const value = saved.createElement(control.localName === "textarea" ? "pre" : "span");
    value.className = "value";
    const given = controls[n];
    value.textContent = given.localName === "select" ? given.selectedOptions[0]?.textContent ?? "" : given.value || given.placeholder;
    if (given.type === "range" && given.labels[0]?.parentNode.querySelector("output")) value.textContent = ""; // its output says it
    control.replaceWith(value);
  });
  copy.querySelectorAll("[data-unsaved], [hidden]").forEach((part) => part.remove());
  copy.querySelectorAll("button").forEach((part) => {
    const text = saved.createElement("span");
    text.className = part.className;
    text.append(...part.childNodes);
    part.replaceWith(text);
  });
  copy.querySelectorAll("details").forEach((part) => part.setAttribute("open", ""));
  for (const key of ["role", "tabindex", "for"]) copy.querySelectorAll(`[${key}]`).forEach((part) => part.removeAttribute(key));
  return copy;
}
