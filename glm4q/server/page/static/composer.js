// The field where a person writes, with the button that sends or stops.
import { $ } from "./calculator/elements.js";
import { isSend } from "./editor.js";

export function startComposer(chat, isReady) {
  const form = $("composer"), field = $("prompt");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (chat.isRunning) {
      chat.stop();
      return;
    }
    const text = field.value.trim();
    if (!text || !isReady()) return;
    field.value = "";
    chat.ask(text);
  });
  field.addEventListener("keydown", (event) => {
    if (!isSend(event)) return;
    event.preventDefault();
    if (!chat.isRunning) form.requestSubmit();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && chat.isRunning && !document.querySelector("dialog[open]")) chat.stop();
  });
}

export function showComposer(chat) {
  const button = $("send");
  button.dataset.state = chat.isRunning ? "stop" : "send";
  button.setAttribute("aria-label", chat.isRunning ? "Stop" : "Send");
  button.title = chat.isRunning ? "Stop (Esc)" : "Send (Enter)";
}

// Show how much of the context the conversation takes, which is known after its first answer.
export function showContext(tokens, context) {
  $("context-part").hidden = !tokens;
  $("context-meter").max = context;
  $("context-meter").value = tokens;
  $("context-words").textContent = `${tokens.toLocaleString("en-US")} of ${context.toLocaleString("en-US")} tokens`;
}
