// The tool calls of an answer. A person gives the result of each, or refuses it; then the model
// goes on. No call runs by itself.
import { element } from "./calculator/elements.js";
import { openCalls } from "./conversation.js";
import { prettyArguments } from "./tools.js";

export class CallCards {
  constructor(message, actions) {
    this.message = message;
    this.actions = actions;
    this.element = element("div", undefined, "calls");
    this.cards = [];
  }

  update(conversation) {
    const { calls = [] } = this.message;
    while (this.cards.length < calls.length) {
      const card = new CallCard((result) => this.actions.giveResult(this.message, calls[this.cards.indexOf(card)], result));
      this.cards.push(card);
      this.element.append(card.element);
    }
    const open = new Set(this.message.state === "done" ? openCalls(conversation).map((call) => call.id) : []);
    this.cards.forEach((card, at) => card.update(calls[at], open.has(calls[at].id)));
  }
}

class CallCard {
  constructor(answer) {
    this.element = element("section", undefined, "call");
    this.title = element("p", "", "label");
    this.given = element("pre");
    this.given.tabIndex = 0;
    this.given.setAttribute("role", "region");
    this.form = this.makeForm(answer);
    this.element.append(this.title, this.given, this.form);
  }

  makeForm(answer) {
    const form = element("form"), label = element("label", "Its result, for the model");
    const give = element("button", "Give result", "primary"), refuse = element("button", "Refuse");
    this.field = element("textarea");
    this.field.rows = 2;
    give.type = "submit";
    refuse.type = "button";
    const buttons = element("div", undefined, "buttons");
    buttons.append(refuse, give);
    label.append(this.field);
    form.append(label, buttons);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      answer(this.field.value);
    });
    refuse.addEventListener("click", () => answer(null));
    return form;
  }

  update(call, isOpen) {
    this.title.textContent = isOpen ? `The model asks to call ${call.name}` : `Call of ${call.name}`;
    this.given.textContent = prettyArguments(call.arguments);
    this.given.setAttribute("aria-label", `arguments of ${call.name}`);
    this.form.hidden = !isOpen;
    this.element.classList.toggle("open", isOpen);
  }
}
