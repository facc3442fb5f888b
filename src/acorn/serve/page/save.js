// Saves what a view shows as one HTML file that needs nothing outside it: no script, its style inside.

import { button, el } from "./dom.js";

const POLICY = "default-src 'none'; style-src 'unsafe-inline'";

export function saveButton(name, node, served) {
  return button("Save as one HTML file", async () => {
    const style = await (await fetch("page/style.css")).text();
    const file = new Blob([page(name, node, served, style)], { type: "text/html" });
    const stem = `${served.name}-${name}`.toLowerCase().replace(/[^\w.-]+/g, "-");
    const link = el("a", { href: URL.createObjectURL(file), download: `${stem}.html` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  });
}

/** The text of the file. Elements escape what is in them. */
function page(name, node, served, style) {
  const facts = `${document.getElementById("facts").textContent} · saved ${new Date().toISOString().slice(0, 16).replace("T", " ")} UTC`;
  const head = [
    el("meta", { charset: "utf-8" }),
    el("meta", { "http-equiv": "Content-Security-Policy", content: POLICY }),
    el("meta", { name: "viewport", content: "width=device-width, initial-scale=1" }),
    el("title", { text: `${served.name}: ${name} · acorn` }),
    el("style", { text: style }),
  ];
  const body = [
    el("header", {}, el("h1", { text: `${served.name}: ${name}` }), el("p", { class: "soft", text: facts })),
    el("main", {}, still(node)),
  ];
  const text = (nodes) => nodes.map((one) => one.outerHTML).join("\n");
  return `<!doctype html>\n<html lang="en">\n<head>\n${text(head)}\n</head>\n<body>\n${text(body)}\n</body>\n</html>\n`;
}

/** A copy of what is shown, in which nothing can be pressed: controls become their values. */
function still(node) {
  const copy = node.cloneNode(true);
  const controls = [...node.querySelectorAll("input, textarea, select")];
  [...copy.querySelectorAll("input, textarea, select")].forEach((control, n) => {
    const { localName, type, value, placeholder, selectedOptions } = controls[n];
    const text = localName === "select" ? selectedOptions[0]?.textContent : value || placeholder;
    // The output beside a slider says its value.
    control.replaceWith(el(localName === "textarea" ? "pre" : "span", { class: "value", text: type === "range" ? "" : text }));
  });
  copy.querySelectorAll("[data-unsaved], [hidden]").forEach((part) => part.remove());
  copy.querySelectorAll("button").forEach((part) => part.replaceWith(el("span", { class: part.className }, [...part.childNodes])));
  copy.querySelectorAll("details").forEach((part) => part.setAttribute("open", ""));
  for (const key of ["role", "tabindex", "for"]) copy.querySelectorAll(`[${key}]`).forEach((part) => part.removeAttribute(key));
  return copy;
}
