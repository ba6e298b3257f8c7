// Markdown becomes elements. HTML that the model writes stays text, links lead only to http, https
// and mail, and images are links, because an image would tell its server that it was looked at.
import { Marked } from "./vendor/marked.js";
import DOMPurify from "./vendor/purify.js";

const SAFE_LINK = /^(https?:\/\/|mailto:)/i;
const ALLOWED = {
  ALLOWED_TAGS: [
    "p", "br", "hr", "h3", "h4", "h5", "h6", "strong", "em", "del", "code", "pre", "blockquote", "ul", "ol", "li",
    "table", "thead", "tbody", "tr", "th", "td", "a", "span",
  ],
  ALLOWED_ATTR: ["href", "class", "start", "align", "title"],
  ALLOW_DATA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const escaped = (text) => text.replace(/[&<>"']/g, (letter) => ENTITIES[letter]);

function link(href, words, raw) {
  return SAFE_LINK.test(href) ? `<a href="${escaped(href)}">${words}</a>` : escaped(raw);
}

const marked = new Marked({
  gfm: true,
  breaks: false,
  renderer: {
    html: ({ raw, block }) => block ? `<p>${escaped(raw.trim()).replaceAll("\n", "<br>")}</p>` : escaped(raw),
    link({ href, tokens, raw }) { return link(href, this.parser.parseInline(tokens), raw); },
    image: ({ href, text, raw }) => link(href, escaped(`image: ${text || href}`), raw),
    // Headings of an answer stand below those of the page.
    heading({ depth, tokens }) {
      const level = Math.min(depth + 2, 6);
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
    },
    checkbox: ({ checked }) => checked ? "☑ " : "☐ ",
    code: ({ text, lang }) => {
      const language = /^[\w+#.-]{1,30}/.exec(lang ?? "")?.[0] ?? "";
      return `<pre><code class="language-${escaped(language)}">${escaped(text)}\n</code></pre>`;
    },
  },
});

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName !== "A") return;
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer nofollow");
});

export const sanitized = (html) => DOMPurify.sanitize(html, ALLOWED);

// Show a text in an element again and again while it grows: blocks whose source has not changed
// keep their elements, so a selection in them stays and only the last block is written again.
export class GrowingMarkdown {
  constructor(element, finishBlock) {
    this.element = element;
    this.finishBlock = finishBlock;
    this.blocks = []; // [source, elements, whether it was finished]
  }

  show(text, isWhole) {
    const tokens = marked.lexer(text).filter((token) => token.type !== "space");
    let same = 0;
    while (same < tokens.length && this.blocks[same]?.source === tokens[same].raw) same++;
    for (const block of this.blocks.splice(same)) for (const node of block.nodes) node.remove();
    for (const token of tokens.slice(same)) {
      const list = [token];
      list.links = tokens.links;
      const fragment = sanitized(marked.parser(list)), nodes = [...fragment.childNodes];
      this.element.append(fragment);
      this.blocks.push({ source: token.raw, nodes, isFinished: false });
    }
    this.blocks.forEach((block, at) => {
      if (block.isFinished || !(isWhole || at < this.blocks.length - 1)) return;
      block.isFinished = true;
      block.nodes = block.nodes.map(this.finishBlock);
    });
  }
}
