// The question that the pickers ask: its fields, its limits, and the forms in which it is written.
import { KV_NAMES } from "./weights.js";
import { MIB } from "./units.js";

// What the program that made the page knows: models by key, cards, and the question to begin with.
export const facts = { models: {}, cards: [], start: {} };

const NUMBERS = ["context", "users", "prefix", "chunk", "draft", "reserve", "gpus"];
const WORDS = ["model", "weights", "group", "head", "kv", "embedding", "split", "card", "others"];
const SPLITS = ["tensor", "layers"];
const GPUS = [1, 2, 3, 4, 6, 8];
export const GROUPS = ["128", "64", "32", "channel"];
const LONGEST_FRAGMENT = 2000, MOST_OTHERS = 15;

export const modelOf = (ask) => facts.models[ask.model];
export const cardOf = (name) =>
  facts.cards.find((card) => card.name.toLowerCase() === name.trim().toLowerCase());
// The cards behind the first one, where they are not alike; null where a name is not known.
export function othersOf(text) {
  const names = text.split(",").map((name) => name.trim()).filter(Boolean), cards = names.map(cardOf);
  return cards.every(Boolean) ? cards : null;
}
export function cardsOf(ask) {
  const others = othersOf(ask.others) ?? [], first = cardOf(ask.card);
  return others.length ? [first, ...others] : Array.from({ length: ask.gpus }, () => first);
}
export const gpusFor = () => [...new Set([...GPUS, facts.start.gpus])].sort((a, b) => a - b);
export const weightsFor = (model) => model.stored ? ["as stored"] : ["bf16", "int8", "int4", "nf4", "llm-int8"];
export const headsFor = (model) => model.stored ? ["as stored"] : ["bf16", "int8"];
// Tokens guessed in a step, at most; a step of several users verifies none.
export const draftsOf = (users) => (users > 1 ? 0 : 7);
export const longestOf = (ask) => modelOf(ask).config.max_position_embeddings;

// Put what is out of bounds within them, so that a damaged link opens a question that can be.
export function valid(ask) {
  if (!Object.hasOwn(facts.models, ask.model)) ask.model = facts.start.model;
  const model = modelOf(ask);
  const clamp = (value, low, high) => Math.min(Math.max(Math.floor(value) || low, low), high);
  const oneOf = (name, known) => { if (!known.includes(ask[name])) ask[name] = known[0]; };
  ask.context = clamp(ask.context, 1, longestOf(ask));
  ask.users = clamp(ask.users, 1, 512);
  ask.prefix = clamp(ask.prefix, 0, ask.context);
  ask.chunk = clamp(ask.chunk, 1, 16384);
  ask.draft = clamp(ask.draft, 0, draftsOf(ask.users));
  ask.reserve = clamp(ask.reserve, 0, 65536 * MIB);
  const others = (othersOf(ask.others) ?? []).slice(0, MOST_OTHERS);
  ask.others = others.map((card) => card.name).join(", ");
  if (others.length) Object.assign(ask, { gpus: others.length + 1, split: "layers" });
  else ask.gpus = gpusFor().includes(ask.gpus) ? ask.gpus : 1;
  ask.layers = ask.layers === null || ask.gpus > 1 ? null : clamp(ask.layers, 0, model.config.num_hidden_layers);
  oneOf("weights", weightsFor(model));
  oneOf("head", headsFor(model));
  oneOf("group", GROUPS);
  oneOf("kv", KV_NAMES);
  oneOf("embedding", ["gpu", "host"]);
  oneOf("split", SPLITS);
  ask.card = (cardOf(ask.card) || cardOf(facts.start.card) || facts.cards[0]).name;
  return ask;
}

export function questionOf(fragment) {
  const given = Object.fromEntries(new URLSearchParams(fragment.slice(0, LONGEST_FRAGMENT)));
  const ask = { ...facts.start };
  for (const name of NUMBERS) if (/^\d{1,12}$/.test(given[name] ?? "")) ask[name] = Number(given[name]);
  for (const name of WORDS) if (Object.hasOwn(given, name)) ask[name] = given[name];
  if (Object.hasOwn(given, "layers")) ask.layers = /^\d{1,4}$/.test(given.layers) ? Number(given.layers) : null;
  return valid(ask);
}

export const fragmentOf = (ask) =>
  new URLSearchParams([...WORDS, ...NUMBERS, "layers"].map((name) => [name, ask[name] ?? "all"])).toString();

// The command line that asks the same, as calculator/questions/question.py writes it.
export function commandOf(ask) {
  const model = modelOf(ask), words = ["glm4q calc", model.argument];
  const quoted = (word) => /^[\w.,/+-]+$/.test(word) ? word : `'${word}'`;
  if (!model.stored) {
    words.push("--weights", ask.weights);
    const grouped = ["int8", "int4"].includes(ask.weights) || ask.head === "int8";
    if (ask.group !== "128" && grouped) words.push("--group-size", ask.group);
    if (ask.head !== "bf16") words.push("--lm-head", ask.head);
  }
  words.push("--kv", ask.kv, "--context", ask.context);
  const others = [["--users", "users", 1], ["--shared-prefix", "prefix", 0], ["--prefill-chunk", "chunk", 512], ["--draft", "draft", draftsOf(ask.users)]];
  for (const [option, name, plain] of others) if (ask[name] !== plain) words.push(option, ask[name]);
  if (ask.layers !== null) words.push("--gpu-layers", ask.layers);
  words.push("--embedding", ask.embedding);
  if (ask.reserve !== 256 * MIB) words.push("--reserve", ask.reserve ? ask.reserve / MIB + "M" : "0");
  if (ask.others) return [...words, "--gpus", quoted(cardsOf(ask).map((card) => card.name).join(","))].join(" ");
  if (ask.gpus > 1) words.push("--gpus", ask.gpus);
  if (ask.gpus > 1 && ask.split !== "tensor") words.push("--split", ask.split);
  return words.concat(cardOf(ask.card).arguments.map(quoted)).join(" ");
}
