// A field in the place of a message, to change what was asked.
import { element } from "./calculator/elements.js";

// done: called once, with the new text, or null where nothing is to change.
export function editor(text, done) {
  const form = element("form", undefined, "editor"), field = element("textarea", text);
  const send = element("button", "Send", "primary"), cancel = element("button", "Cancel");
  field.value = text;
  field.setAttribute("aria-label", "Edit the message");
  send.type = "submit";
  cancel.type = "button";
  const buttons = element("div", undefined, "buttons");
  buttons.append(cancel, send);
  form.append(field, buttons);
  cancel.addEventListener("click", () => done(null));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const changed = field.value.trim();
    done(changed && changed !== text ? changed : null);
  });
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      done(null);
    }
    if (isSend(event)) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  return form;
}

// Enter sends; with Shift it is a new line. While an input method composes, Enter is its own.
export const isSend = (event) => event.key === "Enter" && !event.shiftKey && !event.isComposing;
