// One message as it is shown: text, thoughts, calls, why it ended, and what can be done with it.
import { element } from "./calculator/elements.js";
import { fixed, number } from "./calculator/units.js";
import { CallCards } from "./calls.js";
import { copyButton, finishCode } from "./code.js";
import { siblings } from "./conversation.js";
import { editor } from "./editor.js";
import { iconButton } from "./icons.js";
import { GrowingMarkdown } from "./markdown.js";

const WORDS = { waiting: "Waiting for a free place", reading: "Reading the prompt", thinking: "", writing: "", done: "" };
const ENDINGS = {
  stopped: "Stopped.",
  length: "Cut off: the answer reached its limit or the end of the context, or it repeated itself.",
  stop: "", tool_calls: "", error: "",
};

export class MessageView {
  // actions: what the chat does when a person edits, retries, chooses a branch or answers a call.
  constructor(message, actions) {
    this.message = message;
    this.actions = actions;
    this.element = element("article", undefined, `message ${message.role}`);
    this.element.dataset.id = message.id;
    this.element.setAttribute("aria-label", nameOf(message));
    this.bar = element("div", undefined, "bar");
    if (message.role === "assistant") this.buildAnswer();
    else this.buildText();
    this.element.append(this.bar);
  }

  buildText() {
    this.text = element("div", this.message.content, "text");
    if (this.message.role === "tool") this.element.append(element("p", nameOf(this.message), "label"));
    this.element.append(this.text);
  }

  buildAnswer() {
    this.thoughts = element("details", undefined, "thoughts");
    this.thoughtsTitle = element("summary", "Thinking");
    this.thoughtsText = element("div");
    this.thoughts.append(this.thoughtsTitle, this.thoughtsText);
    this.content = element("div", undefined, "content");
    this.calls = new CallCards(this.message, this.actions);
    this.status = element("p", "", "status");
    this.problem = element("p", "", "problem");
    this.problem.setAttribute("role", "alert");
    this.markdown = new GrowingMarkdown(this.content, finishCode);
    this.thoughtsMarkdown = new GrowingMarkdown(this.thoughtsText, finishCode);
    this.element.append(this.thoughts, this.content, this.calls.element, this.status, this.problem);
  }

  // Show the message as it is now.
  update(conversation) {
    const { message } = this;
    if (message.role === "assistant") this.updateAnswer(conversation);
    const isDone = message.role !== "assistant" || message.state === "done";
    this.element.setAttribute("aria-busy", String(!isDone));
    if (isDone) this.showBar(conversation);
    else this.bar.replaceChildren();
  }

  updateAnswer(conversation) {
    const { message } = this, isDone = message.state === "done";
    this.thoughts.hidden = !message.thinking;
    if (message.thinking) {
      const isThinking = message.state === "thinking";
      this.thoughtsTitle.textContent = isThinking ? "Thinking…" : `Thought for ${fixed(message.thinkingSeconds ?? 0, 1)} s`;
      this.thoughtsMarkdown.show(message.thinking, !isThinking);
    }
    this.markdown.show(message.content, isDone);
    this.element.classList.toggle("writing", message.state === "writing");
    this.status.textContent = isDone ? ENDINGS[message.finish] ?? message.finish : WORDS[message.state];
    this.status.classList.toggle("busy", !isDone);
    this.status.hidden = !this.status.textContent;
    this.problem.textContent = message.error ?? "";
    if (message.retryAfter) this.problem.textContent += ` (Retry in ${message.retryAfter} s.)`;
    this.problem.hidden = !message.error;
    this.calls.update(conversation);
  }

  showBar(conversation) {
    const { message, actions } = this, parts = [];
    const family = siblings(conversation, message);
    if (family.length > 1) parts.push(this.branches(family));
    if (message.content) parts.push(copyButton(() => message.content, "Copy message"));
    if (message.role === "user") parts.push(iconButton("edit", "Edit", () => this.edit()));
    if (message.role === "assistant") {
      parts.push(iconButton("retry", "Retry", () => actions.retry(message)));
      if (message.stats?.tokens) parts.push(element("span", statsOf(message.stats), "stats"));
    }
    this.bar.replaceChildren(...parts);
  }

  branches(family) {
    const at = family.findIndex((other) => other.id === this.message.id), box = element("span", undefined, "branches");
    const go = (step) => this.actions.choose(family[at + step], step);
    const before = iconButton("before", "Earlier version", () => go(-1)), after = iconButton("after", "Later version", () => go(1));
    before.disabled = at === 0;
    after.disabled = at === family.length - 1;
    const place = element("span", `${at + 1} / ${family.length}`);
    place.setAttribute("aria-label", `version ${at + 1} of ${family.length}`);
    place.setAttribute("role", "img");
    box.append(before, place, after);
    return box;
  }

  edit() {
    const field = editor(this.message.content, (text) => {
      field.replaceWith(this.text);
      this.bar.hidden = false;
      if (text === null) this.bar.querySelector("[data-icon=edit]")?.focus();
      else this.actions.edit(this.message, text);
    });
    this.bar.hidden = true;
    this.text.replaceWith(field);
    field.querySelector("textarea").focus();
  }
}

function nameOf(message) {
  if (message.role === "tool") return message.isRefused ? `Refused: ${message.name}` : `Result of ${message.name}`;
  return message.role === "user" ? "You" : "Answer";
}

function statsOf({ tokens, speed, wait }) {
  const words = [`${number(tokens)} tokens`];
  if (speed) words.push(`${speed < 100 ? fixed(speed, 1) : number(Math.round(speed))} tokens/s`);
  if (wait !== undefined) words.push(`first after ${fixed(wait, wait < 10 ? 2 : 0)} s`);
  return words.join(" · ");
}
