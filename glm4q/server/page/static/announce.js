// Tells a screen reader what happens, and shows short notices to all.
import { $ } from "./calculator/elements.js";

let clearing = 0;

export function announce(text) {
  $("announcement").textContent = text;
}

// Show a sentence at the foot of the page for some seconds.
export function notice(text) {
  const box = $("notice");
  box.textContent = text;
  box.hidden = false;
  announce(text);
  clearTimeout(clearing);
  clearing = setTimeout(() => { box.hidden = true; }, 6000);
}
