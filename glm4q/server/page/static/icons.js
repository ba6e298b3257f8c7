// Buttons with a drawn icon; their name is a label for screen readers and a hint for the mouse.
import { drawn, element } from "./calculator/elements.js";

export function iconButton(icon, name, act) {
  const button = element("button", undefined, "icon quiet");
  button.type = "button";
  button.title = name;
  button.setAttribute("aria-label", name);
  const picture = drawn("svg", { "aria-hidden": "true" });
  picture.append(drawn("use", {}));
  button.append(picture);
  setIcon(button, icon);
  button.addEventListener("click", act);
  return button;
}

export function setIcon(button, icon) {
  button.dataset.icon = icon;
  button.querySelector("use").setAttribute("href", `#icon-${icon}`);
}
