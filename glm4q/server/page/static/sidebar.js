// The list of conversations: open, rename, export, delete.
import { notice } from "./announce.js";
import { $, element } from "./calculator/elements.js";
import { iconButton } from "./icons.js";
import { remove, save } from "./store.js";
import { download, exported } from "./transfer.js";

const DAY = 86_400_000;

export class Sidebar {
  // open: called with the conversation that a person picks.
  constructor(conversations, open, removed) {
    this.conversations = conversations;
    this.open = open;
    this.removed = removed;
    $("search").addEventListener("input", () => this.show(this.current));
    $("menu").addEventListener("click", () => this.toggle());
    $("shade").addEventListener("click", () => this.toggle(false));
    $("sidebar").addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.toggle(false);
    });
  }

  toggle(isOpen = !document.body.classList.contains("with-sidebar")) {
    document.body.classList.toggle("with-sidebar", isOpen);
    $("menu").setAttribute("aria-expanded", String(isOpen));
    if (isOpen) $("new-chat").focus();
    else $("menu").focus();
  }

  show(current) {
    this.current = current;
    const word = $("search").value.trim().toLowerCase();
    const list = [...this.conversations.values()]
      .filter((each) => Object.keys(each.messages).length && contains(each, word))
      .sort((a, b) => b.updated - a.updated);
    let day = "";
    $("conversations").replaceChildren(...list.flatMap((conversation) => {
      const here = dayOf(conversation.updated), items = here === day ? [] : [element("li", here, "day")];
      day = here;
      return [...items, this.item(conversation)];
    }));
    $("no-conversations").hidden = list.length > 0;
    $("no-conversations").textContent = word ? "No conversation has that word." : "Conversations are kept in this browser.";
  }

  item(conversation) {
    const line = element("li", undefined, "conversation"), button = element("button", conversation.title || "Untitled", "title");
    button.type = "button";
    if (conversation.id === this.current?.id) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => {
      this.toggle(false);
      this.open(conversation);
    });
    const name = conversation.title || "Untitled";
    line.append(
      button,
      iconButton("edit", `Rename ${name}`, () => this.rename(conversation, line)),
      iconButton("save", `Export ${name}`, () => download(exported([conversation]), name)),
      iconButton("delete", `Delete ${name}`, () => this.remove(conversation)),
    );
    return line;
  }

  rename(conversation, line) {
    const field = element("input");
    field.value = conversation.title;
    field.maxLength = 200;
    field.setAttribute("aria-label", "New title");
    line.replaceChildren(field);
    field.focus();
    field.select();
    const finish = async (title) => {
      field.onblur = null;
      if (title) conversation.title = title;
      this.show(this.current);
      await save(conversation);
    };
    field.onblur = () => finish(field.value.trim());
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter") finish(field.value.trim());
      if (event.key === "Escape") {
        event.stopPropagation();
        finish("");
      }
    });
  }

  async remove(conversation) {
    if (!confirm(`Delete "${conversation.title}"? It is kept nowhere else.`)) return;
    this.conversations.delete(conversation.id);
    await remove(conversation.id);
    this.removed(conversation);
    notice("The conversation is deleted.");
  }
}

function contains(conversation, word) {
  if (!word || conversation.title.toLowerCase().includes(word)) return true;
  return Object.values(conversation.messages).some((message) => message.content.toLowerCase().includes(word));
}

function dayOf(time) {
  const days = Math.floor((new Date().setHours(24, 0, 0, 0) - time) / DAY);
  if (days < 1) return "Today";
  if (days < 2) return "Yesterday";
  if (days < 7) return "This week";
  return new Date(time).toLocaleDateString("en-GB", { month: "long", year: "numeric" });
}
