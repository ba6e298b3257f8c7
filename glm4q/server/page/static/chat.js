// The chat knows which conversation is open and which answers run, and does what a person asks.
import { announce, notice } from "./announce.js";
import { $ } from "./calculator/elements.js";
import { addMessage, choose, lastOf, newConversation, openCalls, REFUSED, ROOT, shown } from "./conversation.js";
import { answer } from "./exchange.js";
import { save } from "./store.js";
import { Thread } from "./thread.js";

const SAVE_EVERY = 1000; // milliseconds between savings of an answer that grows

export class Chat {
  // changed: called where the list of conversations, or what runs, may look different.
  constructor(model, changed) {
    this.model = model;
    this.changed = changed;
    this.running = new Map();
    this.deleted = new Set();
    this.thread = new Thread({
      edit: (message, text) => this.edit(message, text),
      retry: (message) => this.run(message.parent),
      choose: (message, step) => this.choose(message, step),
      giveResult: (message, call, result) => this.giveResult(call, result),
    });
    this.open(newConversation());
  }

  get isRunning() {
    return this.running.has(this.conversation.id);
  }

  open(conversation) {
    this.conversation = conversation;
    for (const message of Object.values(conversation.messages)) this.settle(message);
    this.thread.follows = true;
    this.thread.show(conversation);
    this.changed();
  }

  // An answer that grew when the page was closed does not grow any more.
  settle(message) {
    if (message.role !== "assistant" || message.state === "done" || this.isRunning) return;
    Object.assign(message, { state: "done", finish: message.finish ?? "stopped" });
  }

  start(settings) {
    this.open(newConversation(settings));
  }

  ask(text) {
    this.thread.follows = true;
    const message = addMessage(this.conversation, lastOf(this.conversation), { role: "user", content: text });
    return this.run(message.id);
  }

  edit(message, text) {
    const changed = addMessage(this.conversation, message.parent, { role: "user", content: text });
    return this.run(changed.id);
  }

  choose(message, step) {
    choose(this.conversation, message);
    this.thread.follows = false;
    this.thread.show(this.conversation);
    this.thread.focusBranch(message, step);
    this.keep(this.conversation);
    this.changed();
  }

  // result: null where the call is refused.
  giveResult(call, result) {
    const fields = { role: "tool", callId: call.id, name: call.name, content: result ?? REFUSED, isRefused: result === null };
    addMessage(this.conversation, lastOf(this.conversation), fields);
    this.thread.show(this.conversation);
    if (!openCalls(this.conversation).length) return this.run(lastOf(this.conversation));
    return this.keep(this.conversation);
  }

  stop() {
    this.running.get(this.conversation.id)?.controller.abort();
  }

  // An answer that still grows is stopped first: a conversation has one at a time.
  async run(parent) {
    const { conversation } = this, controller = new AbortController();
    if (parent === ROOT) return;
    const before = this.running.get(conversation.id);
    before?.controller.abort();
    await before?.ended;
    const { promise: ended, resolve: end } = Promise.withResolvers();
    this.running.set(conversation.id, { controller, ended });
    announce("The answer begins");
    this.changed();
    let saved = 0;
    const message = await answer(conversation, parent, this.model(), controller.signal, (growing) => {
      this.thread.grow(conversation, growing);
      if (Date.now() - saved < SAVE_EVERY) return;
      saved = Date.now();
      this.keep(conversation);
    });
    this.running.delete(conversation.id);
    end();
    announce(message.error ?? (message.finish === "stopped" ? "Stopped" : "The answer is complete"));
    if (conversation === this.conversation) this.thread.show(conversation);
    await this.keep(conversation);
    this.changed();
    if (message.calls.length && conversation === this.conversation) document.querySelector(".call.open textarea")?.focus();
  }

  async keep(conversation) {
    if (!Object.keys(conversation.messages).length || this.deleted.has(conversation.id)) return;
    try {
      await save(conversation);
    } catch (error) {
      notice(`The browser did not keep the conversation: ${error?.message ?? "its storage is full"}`);
    }
  }

  forget(conversation) {
    this.deleted.add(conversation.id);
    this.running.get(conversation.id)?.controller.abort();
    if (conversation === this.conversation) this.start();
  }

  // Tokens of the last prompt and its answer, as the server counted them.
  get tokens() {
    const stats = shown(this.conversation).findLast((message) => message.stats?.tokens !== undefined)?.stats;
    return stats ? stats.prompt + stats.tokens : 0;
  }
}

export const focusComposer = () => $("prompt").focus();
