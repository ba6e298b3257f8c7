// The pickers of the calculator: they show a question, and read one.
import { $, element, option } from "./elements.js";
import { cardOf, facts, GROUPS, gpusFor, headsFor, longestOf, modelOf, othersOf, valid, weightsFor } from "./question.js";
import { MIB, number, size } from "./units.js";
import { KV_NAMES } from "./weights.js";

const MARKS = [[1024, "1K"], [8192, "8K"], [32768, "32K"], [64512, "63K"], [128000, "125K"], [131072, "128K"]];
const PICKED = ["model", "weights", "group", "head", "kv", "embedding", "split"];
const CARDS = ["card", "others"];
const TYPED = ["context", "users", "prefix", "chunk", "draft", "gpus"];

// The slider's 1,000 places are even in the logarithm of the context.
const toSlider = (context, longest) => Math.round(1000 * Math.log(context) / Math.log(Math.max(longest, 2)));
const fromSlider = (place, longest) => Math.round(longest ** (place / 1000));

export function listChoices() {
  for (const [key, model] of Object.entries(facts.models)) option($("model"), key, model.name);
  for (const group of GROUPS) option($("group"), group, group);
  for (const kv of KV_NAMES) option($("kv"), kv, kv);
  for (const gpus of gpusFor()) option($("gpus"), gpus, gpus);
  for (const card of facts.cards) option($("cards"), card.name, size(card.bytes));
}

export function showQuestion(ask) {
  const model = modelOf(ask);
  for (const [name, values] of [["weights", weightsFor(model)], ["head", headsFor(model)]]) {
    $(name).replaceChildren();
    for (const value of values) option($(name), value, value);
  }
  for (const name of [...PICKED, ...TYPED]) $(name).value = ask[name];
  for (const name of CARDS) if (document.activeElement !== $(name)) $(name).value = ask[name]; // else it is being typed
  $("gpus").disabled = Boolean(ask.others);
  $("reserve").value = ask.reserve / MIB;
  $("layers").value = ask.layers ?? "";
  $("layers").disabled = ask.gpus > 1;
  $("split").disabled = ask.gpus === 1 || Boolean(ask.others);
  $("draft").disabled = ask.users > 1;
  $("slider").value = toSlider(ask.context, longestOf(ask));
  $("slider").setAttribute("aria-valuetext", number(ask.context) + " tokens");
  $("context").max = longestOf(ask);
  showMarks(ask);
}

function showMarks(ask) {
  const made = MARKS.filter(([count]) => count <= longestOf(ask)).map(([count, text]) => {
    const button = element("button", text);
    button.type = "button";
    button.dataset.context = count;
    button.setAttribute("aria-pressed", ask.context === count);
    return button;
  });
  const focused = document.activeElement?.dataset?.context;
  $("marks").replaceChildren(...made);
  made.find((button) => button.dataset.context === focused)?.focus();
}

export function readQuestion(before) {
  const ask = { ...before };
  for (const name of PICKED) ask[name] = $(name).value;
  for (const name of TYPED) ask[name] = Number($(name).value);
  ask.reserve = Number($("reserve").value) * MIB;
  ask.layers = $("layers").value === "" ? null : Number($("layers").value);
  ask.card = cardOf($("card").value) ? $("card").value : before.card;
  ask.others = othersOf($("others").value) ? $("others").value : before.others;
  return valid(ask);
}

// Whether a card's name is being typed, and is no card yet.
export const isHalfTyped = (field) =>
  (field.id === "card" && !cardOf(field.value)) || (field.id === "others" && !othersOf(field.value));

export const readSlider = (ask) =>
  valid({ ...ask, context: fromSlider(Number($("slider").value), longestOf(ask)) });
