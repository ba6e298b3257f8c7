// Tables that sort: every variant on the card, and every card that holds the variant.
import { $, cell, element, row } from "./elements.js";
import { facts, modelOf } from "./question.js";
import { plan } from "./plan.js";
import { decode } from "./speed.js";
import { bandWords, fixed, isTight, number, size, verdict } from "./units.js";
import { KV_NAMES, kvBits } from "./weights.js";

const KINDS = [ // weights, head
  ["bf16", "bf16"], ["bf16", "int8"], ["int8", "bf16"], ["int8", "int8"],
  ["int4", "bf16"], ["int4", "int8"], ["llm-int8", "bf16"], ["nf4", "bf16"],
];
const BITS_OF = { bf16: 16, int8: 8, int4: 4, nf4: 4, "llm-int8": 8 };
const VARIANT_COLUMNS = [ // key by which the column sorts, or null
  ["bits", "Weights"], [null, "Head"], ["cache", "KV"], [null, "Embedding"], ["bytes", "Required", "number"],
  ["margin", "Left", "number"], [null, "Verdict"], ["speed", "Tokens/s", "number"], ["bits", "Bits", "number"], ["rank", "Best first"],
];
const OFFER_COLUMNS = [
  ["name", "Card"], [null, "Verdict"], ["bytes", "Memory", "number"], ["left", "Left", "number"],
  ["speed", "Tokens/s", "number"], ["watts", "Power", "number"], ["usd", "Launch price", "number"], ["year", "Year", "number"],
];
const sorting = { offers: ["bytes", 1], variants: ["rank", -1] };

export function sortBy(table, key) {
  const [by, way] = sorting[table];
  sorting[table] = [key, by === key ? -way : 1];
}

function showHeader(table, columns) {
  const [by, way] = sorting[table];
  $(table).tHead.replaceChildren(row(columns.map(([key, text, className]) => {
    const made = element("th", undefined, className);
    made.scope = "col";
    if (!key) { made.textContent = text; return made; }
    const button = element("button", text);
    button.type = "button";
    Object.assign(button.dataset, { sort: key, table });
    made.setAttribute("aria-sort", by === key ? (way > 0 ? "ascending" : "descending") : "none");
    made.append(button);
    return made;
  })));
}

function sorted(table, rows) {
  const [by, way] = sorting[table];
  const value = (each) => each[by] ?? Infinity;
  return [...rows].sort((a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0) * way);
}

// The embedding goes to the host only where it would leave little of the card.
function variantsOf(ask, cards) {
  const model = modelOf(ask), [card] = cards, all = [];
  for (const [weights, head] of model.stored ? [["as stored", "as stored"]] : KINDS) for (const kv of KV_NAMES) {
    let best = null;
    for (const embedding of ["gpu", "host"]) {
      const made = plan(model, { ...ask, weights, head, kv, embedding }, cards);
      if (made.refusal) continue;
      if (!best || isTight(best.margin)) best = { weights, head, kv, embedding, margin: card.bytes - made.gpu, bytes: made.gpu, made };
    }
    if (best) all.push(ranked(best, ask, card));
  }
  all.sort((a, b) => {
    const at = a.keys.findIndex((key, place) => key !== b.keys[place]);
    return at < 0 ? 0 : b.keys[at] - a.keys[at];
  });
  all.forEach((each, place) => { each.rank = -place; });
  return all;
}

// calculator/questions/variants.py ranks by the same rules.
function ranked(variant, ask, card) {
  const { margin, weights, head, kv, made } = variant;
  const short = decode(made, card, Math.min(1024, ask.context)), full = decode(made, card, ask.context);
  const bits = BITS_OF[weights] ?? 0, cache = kvBits(kv), isFine = cache >= 16;
  const keys = [
    margin >= 0, isFine, !isTight(margin), bits >= 8, ...(isFine ? [] : [cache]),
    short ? Number(fixed(short[1], 1)) : 0, bits, cache, head === "int8" ? 8 : 16, !["nf4", "llm-int8"].includes(weights),
  ];
  return { ...variant, full, speed: full ? full[1] : 0, bits, cache, keys };
}

const on = (embedding) => embedding === "gpu" ? "GPU" : "host";

export function showVariants(ask, cards) {
  const all = variantsOf(ask, cards), best = all.find((each) => each.margin >= 0);
  showHeader("variants", VARIANT_COLUMNS);
  $("variants").tBodies[0].replaceChildren(...sorted("variants", all).map(variantRow));
  $("best").textContent = best
    ? `Best on this card: ${best.weights} weights, ${best.head} head, ${best.kv} KV cache, embedding on the ${on(best.embedding)}.`
    : "No variant fits this card at this context.";
  $("best").dataset.variant = best ? [best.weights, best.head, best.kv, best.embedding].join("|") : "";
}

function variantRow(each) {
  const word = verdict(each.margin), pick = element("button", "choose"), last = cell();
  pick.type = "button";
  pick.dataset.pick = JSON.stringify({ weights: each.weights, head: each.head, kv: each.kv, embedding: each.embedding });
  pick.setAttribute("aria-label", `choose ${each.weights}, ${each.head} head, ${each.kv} KV`);
  last.append(pick);
  const made = row([
    cell(each.weights), cell(each.head), cell(each.kv), cell(on(each.embedding)), cell(size(each.bytes), "number"),
    cell(size(each.margin), "number"), cell(word, word), cell(bandWords(each.full), "number"),
    cell(each.bits ? `${each.bits} + ${each.cache / 2}` : "", "number"), last,
  ]);
  Object.assign(made.dataset, { variant: [each.weights, each.head, each.kv].join("|"), margin: each.margin });
  return made;
}

export function showOffers(ask, made) {
  const fitting = facts.cards.filter((card) => card.bytes >= made.gpu && card.bandwidth).map((card) => {
    const full = decode(onEach(made, card), card, ask.context);
    return { ...card, left: card.bytes - made.gpu, full, speed: full[1] };
  });
  showHeader("offers", OFFER_COLUMNS);
  $("offers").tBodies[0].replaceChildren(...sorted("offers", fitting).map(offerRow));
  const [smallest] = fitting.filter((card) => card.cuda).sort((a, b) => a.bytes - b.bytes || (a.watts ?? 0) - (b.watts ?? 0));
  $("smallest").textContent = smallest ? `The smallest card that holds it: ${smallest.name}.` : "No card of the list holds it.";
}
// Layers that are divided stay divided as they are on the chosen cards.
const onEach = (made, card) => made.shares ? { ...made, shares: made.shares.map((share) => ({ ...share, card })) } : made;

function offerRow(card) {
  const word = verdict(card.left);
  const line = row([
    cell(card.cuda ? card.name : card.name + " *"), cell(word, word), cell(size(card.bytes), "number"), cell(size(card.left), "number"),
    cell(bandWords(card.full), "number"), cell(card.watts ? card.watts + " W" : "", "number"),
    cell(card.usd ? "$" + number(card.usd) : "", "number"), cell(card.year ? String(card.year) : "", "number"),
  ]);
  Object.assign(line.dataset, { card: card.name, left: card.left });
  return line;
}
