// Code blocks get a heading with the language, a button that copies, and colours.
import { element } from "./calculator/elements.js";
import { announce, notice } from "./announce.js";
import { iconButton, setIcon } from "./icons.js";
import { sanitized } from "./markdown.js";

const LONGEST = 100_000; // characters; colouring more would hold up the page
let highlighter = null;

// Wrap a finished code block; return what stands in its place, or the node itself.
export function finishCode(node) {
  const code = node.nodeName === "PRE" ? node.querySelector("code") : null;
  if (!code) {
    if (node.nodeName === "TABLE") return scrollable(node);
    for (const inner of node.querySelectorAll?.("pre") ?? []) finishCode(inner);
    return node;
  }
  const language = code.className.replace("language-", ""), figure = element("figure", undefined, "code");
  const heading = element("figcaption"), copy = copyButton(() => code.textContent.replace(/\n$/, ""), "Copy code");
  heading.append(element("span", language || "text"), copy);
  node.replaceWith(figure);
  figure.append(heading, node);
  node.tabIndex = 0; // so that the keyboard can scroll it
  node.setAttribute("role", "region");
  node.setAttribute("aria-label", language ? `${language} code` : "code");
  colour(code, language);
  return figure;
}

function scrollable(table) {
  const box = element("div", undefined, "wide-table");
  table.replaceWith(box);
  box.append(table);
  box.tabIndex = 0;
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", "table");
  return box;
}

async function colour(code, language) {
  const text = code.textContent;
  if (!language || text.length > LONGEST) return;
  highlighter ||= import("./vendor/highlight.js").then((module) => module.default);
  const highlight = await highlighter;
  if (!highlight.getLanguage(language)) return;
  code.replaceChildren(sanitized(highlight.highlight(text, { language, ignoreIllegals: true }).value));
}

export function copyButton(read, name) {
  const button = iconButton("copy", name, async () => {
    const isCopied = await copy(read());
    if (isCopied) announce("Copied");
    else notice("The browser did not allow copying.");
    setIcon(button, isCopied ? "done" : "copy");
    setTimeout(() => setIcon(button, "copy"), 1500);
  });
  return button;
}

// Browsers offer the clipboard only to pages of this machine or over TLS; elsewhere a hidden field
// is selected and copied.
async function copy(text) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch { /* not allowed: the other way may be */ }
  }
  const field = element("textarea");
  field.value = text;
  document.body.append(field);
  field.select();
  const isCopied = document.execCommand("copy");
  field.remove();
  return isCopied;
}
