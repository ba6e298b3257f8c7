// The API key of a server that needs one: typed by a person, kept until the tab is closed.
import { $ } from "./calculator/elements.js";

let waiting = null;

export const forgetKey = () => sessionStorage.removeItem("glm4q-key");

// Resolve to whether a key was typed. Requests that wait at the same time share one question.
export function keyFor(problem) {
  waiting ||= ask(problem).finally(() => { waiting = null; });
  return waiting;
}

function ask(problem) {
  const dialog = $("key-dialog"), input = $("key-input");
  $("key-problem").textContent = problem;
  input.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  input.focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const key = dialog.returnValue === "use" ? input.value.trim() : "";
      input.value = "";
      if (key) sessionStorage.setItem("glm4q-key", key);
      resolve(Boolean(key));
    }, { once: true });
  });
}
