// The messages of the open conversation, and whether the view follows the end of a growing answer.
import { $, element } from "./calculator/elements.js";
import { shown } from "./conversation.js";
import { MessageView } from "./message.js";

const NEAR = 80; // pixels from the end within which the view follows it

export class Thread {
  constructor(actions) {
    this.actions = actions;
    this.views = new Map();
    this.conversation = null;
    this.waiting = new Set();
    this.follows = true;
    this.box = $("thread");
    this.box.addEventListener("scroll", () => {
      this.follows = this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight < NEAR;
      $("to-end").hidden = this.follows;
    }, { passive: true });
    $("to-end").addEventListener("click", () => this.toEnd());
  }

  show(conversation) {
    if (this.conversation !== conversation) this.views.clear();
    this.conversation = conversation;
    const path = shown(conversation), known = this.views;
    this.views = new Map(path.map((message) => [message.id, known.get(message.id) ?? new MessageView(message, this.actions)]));
    const wanted = [...this.views.values()].map((view) => view.element);
    const messages = $("messages");
    for (const node of [...messages.children]) if (!wanted.includes(node)) node.remove();
    wanted.forEach((node, at) => {
      if (messages.children[at] !== node) messages.insertBefore(node, messages.children[at] ?? null);
    });
    for (const view of this.views.values()) view.update(conversation);
    $("welcome").hidden = path.length > 0;
    this.stay();
  }

  // Draw a message that grows at most once a frame.
  grow(conversation, message) {
    if (conversation !== this.conversation) return;
    if (!this.views.has(message.id)) {
      this.show(conversation);
      return;
    }
    if (!this.waiting.size) requestAnimationFrame(() => this.draw());
    this.waiting.add(message.id);
  }

  draw() {
    for (const id of this.waiting) this.views.get(id)?.update(this.conversation);
    this.waiting.clear();
    this.stay();
  }

  stay() {
    if (this.follows) this.box.scrollTop = this.box.scrollHeight;
  }

  toEnd() {
    this.follows = true;
    $("to-end").hidden = true;
    this.stay();
  }

  focusBranch(message, step) {
    const icon = step < 0 ? "before" : "after", { element: box } = this.views.get(message.id);
    const button = box.querySelector(`[data-icon=${icon}]:not(:disabled)`) ?? box.querySelector(".branches button:not(:disabled)");
    button?.focus();
  }
}

export function suggestion(text, use) {
  const button = element("button", text, "suggestion");
  button.type = "button";
  button.addEventListener("click", () => use(text));
  return button;
}
