// The page of `glm4q calc --as html`: its data stand in the file, its question in the address.
import { startCalculator } from "./calculator.js";
import { $ } from "./elements.js";

startCalculator(JSON.parse($("data").textContent), {
  read: () => location.hash.slice(1),
  link: (fragment) => "#" + fragment,
  keep: (fragment) => {
    try { history.replaceState(null, "", "#" + fragment); } catch { /* a sandboxed frame has no history */ }
  },
});
