// The settings of a conversation: system prompt, sampling, tools. What is left empty is as the
// model's authors set it.
import { $ } from "./calculator/elements.js";
import { NUMBERS } from "./exchange.js";
import { EXAMPLE, readTools } from "./tools.js";

const field = (name) => $(`set-${name}`);

// changed: called with the settings that a person saves.
export function startSettings(changed) {
  const dialog = $("settings"), form = $("settings-form");
  $("tools-example").addEventListener("click", () => {
    field("tools").value = EXAMPLE;
    check();
  });
  field("tools").addEventListener("input", check);
  for (const button of document.querySelectorAll("[data-close]")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!check()) {
      field("tools").focus();
      return;
    }
    changed(read());
    dialog.close();
  });
}

function check() {
  let problem = "";
  try {
    readTools(field("tools").value);
  } catch (error) {
    problem = error.message;
  }
  $("tools-problem").textContent = problem;
  field("tools").setAttribute("aria-invalid", String(Boolean(problem)));
  return !problem;
}

export function openSettings(settings, own) {
  field("system").value = settings.system;
  field("tools").value = settings.tools;
  field("stop").value = (settings.stop ?? []).join("\n");
  for (const name of NUMBERS) {
    field(name).value = settings[name] ?? "";
    if (own[name] !== undefined) field(name).placeholder = String(own[name]);
  }
  check();
  $("settings").showModal();
}

function read() {
  const settings = { system: field("system").value, tools: field("tools").value.trim() };
  for (const name of NUMBERS) if (field(name).value !== "") settings[name] = Number(field(name).value);
  const stop = field("stop").value.split("\n").filter(Boolean);
  if (stop.length) settings.stop = stop;
  return settings;
}
