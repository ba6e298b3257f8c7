// Light, dark, or as the system is.
import { $ } from "./calculator/elements.js";
import { setIcon } from "./icons.js";

const KEY = "glm4q-theme", NEXT = { system: "light", light: "dark", dark: "system" };

function stored() {
  const theme = localStorage.getItem(KEY);
  return theme in NEXT ? theme : "system";
}

function show(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  const button = $("theme");
  setIcon(button, theme);
  button.title = `Colours: ${theme}`;
  button.setAttribute("aria-label", `Colours: ${theme}. Change to ${NEXT[theme]}`);
}

export function startAppearance() {
  show(stored());
  $("theme").addEventListener("click", () => {
    const theme = NEXT[stored()];
    localStorage.setItem(KEY, theme);
    show(theme);
  });
}
