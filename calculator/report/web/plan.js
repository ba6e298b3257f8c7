// The plan of calculator/memory, formula by formula, so that a page answers without a network.
// tests/calculator/report/test_page.py compares it with Python on 2,000 random questions.
import { arenaBytes, BLOCK, reservedBytes } from "./arena.js";
import { ceilTo, groupsOf, isQuantized, KV, partsOf, refusal, splitConfig, termName, weightsOf } from "./weights.js";

const PLAN_MIB = 2 ** 20;

// calculator/memory/plan.py
const listed = new Map();
function listWeights(model, config, ask, hostLayers, range) {
  const key = [config.key, model.name, ask.weights, ask.head, ask.group, ask.embedding, hostLayers].join("|");
  if (listed.has(key)) return listed.get(key);
  if (listed.size > 600) listed.clear();
  const all = model.stored || weightsOf(range ? range.whole : config);
  const why = model.stored ? "" : refusal(config, all, ask);
  const terms = new Map(), requests = [];
  let open = null, layerBlock = 0, sum = 0, scratch = 0;
  for (const weight of range ? all.filter((each) => isIn(range, each)) : all) {
    const inHost = weight.layer !== null && weight.layer < hostLayers;
    const device = weight.role === "embedding" ? ask.embedding : inHost ? "host" : "gpu";
    const parts = weight.parts || partsOf(weight, ask);
    if (weight.layer !== open) { if (layerBlock) requests.push(layerBlock); layerBlock = 0; open = weight.layer; }
    for (const [part, bytes] of parts) {
      const term = termName(weight, part) + "|" + device;
      terms.set(term, (terms.get(term) || 0) + bytes);
      if (device !== "gpu") continue;
      sum += bytes;
      if (weight.layer === null) requests.push(bytes); else layerBlock += ceilTo(bytes, BLOCK);
    }
    scratch = Math.max(scratch, scratchOf(model, weight, ask));
  }
  if (layerBlock) requests.push(layerBlock);
  const made = { terms: [...terms], slack: reservedBytes(requests) - sum, scratch, why };
  listed.set(key, made);
  return made;
}
// calculator/memory/scratch.py
function scratchOf(model, weight, ask) {
  if (weight.scratch) return weight.scratch;
  if (model.stored || !isQuantized(weight.role, ask)) return 0;
  const [outputs, inputs] = weight.shape, kind = weight.role === "head" ? ask.head : ask.weights;
  const groups = kind === "nf4" ? Math.ceil(inputs / 64) : kind === "llm-int8" ? 1 : groupsOf(inputs, ask);
  const rows = Math.min(outputs, Math.max(Math.floor(2 ** 21 / inputs / 32), 1) * 32);
  return rows * (inputs * 8 + groups * 8);
}
// calculator/questions/shares.py: what a card holds that runs these layers
function isIn({ first, stop, last, tied }, weight) {
  if (weight.layer !== null) return first <= weight.layer && weight.layer < stop;
  if (weight.role !== "embedding") return stop === last;
  return first === 0 || (stop === last && tied);
}

export const isTied = (model, ask) =>
  Boolean(model.stored ? model.tied : model.config.tie_word_embeddings && ask.head === "bf16");
const byLayers = (ask) => ask.gpus > 1 && ask.split === "layers";

// Without cards, layers cannot be divided: which card runs how many follows from their memory.
export function plan(model, ask, cards = []) {
  const tied = isTied(model, ask);
  const whole = { ...model.config, key: model.name + (tied ? " tied" : ""), tie_word_embeddings: tied };
  if (tied && ask.embedding === "host") return { refusal: "the head is tied to the embedding: both are on the GPU" };
  if (ask.gpus > 1 && ask.layers !== null) return { refusal: "layers on the host are for one card" };
  if (byLayers(ask)) return planShares(model, whole, ask, cards);
  if (ask.gpus > 1 && model.stored) return { refusal: "the page divides no stored matrices: glm4q calc --gpus does" };
  const config = splitConfig(whole, ask.gpus, tied);
  if (config.refusal) return { refusal: config.refusal + "; the cards can divide the layers" };
  config.key = whole.key + " " + ask.gpus;
  return planOne(model, config, ask, null);
}
function planOne(model, config, ask, range) {
  const hostLayers = ask.layers === null ? 0 : config.num_hidden_layers - ask.layers;
  const weights = listWeights(model, config, ask, hostLayers, range);
  if (weights.why) return { refusal: weights.why };
  const terms = weights.terms.map(([key, bytes]) => [...key.split("|"), bytes]);
  const runs = [...(hostLayers ? [["host", hostLayers]] : []), ["gpu", config.num_hidden_layers - hostLayers]];
  for (const [device, layers] of runs) terms.push(...kvTerms(config, ask, device, layers));
  for (const [device] of runs) terms.push(["workspace", device, arenaBytes(config, ask, weights.scratch, device === "gpu")]);
  terms.push(["sampling", "gpu", 46 * ask.users * config.vocab_size]);
  if (ask.embedding === "host") {
    terms.push(["embedding rows", "host", 2 * ask.users * Math.min(ask.chunk, ask.context) * config.hidden_size]);
  }
  terms.push(["CUDA context", "gpu", 457 * PLAN_MIB], ["allocator slack", "gpu", weights.slack + 8 * PLAN_MIB + 22 * PLAN_MIB]);
  terms.push(["reserve", "gpu", ask.reserve]);
  const total = (device) => terms.reduce((sum, [, on, bytes]) => on === device ? sum + bytes : sum, 0);
  return { terms: terms.filter((term) => term[2]), gpu: total("gpu"), host: total("host"), config, ask };
}
function kvTerms(config, ask, device, layers) {
  const heads = layers * config.num_key_value_heads, sides = KV[ask.kv];
  const cached = ask.prefix + ask.users * (ask.context - ask.prefix);
  const quantized = sides.some((side) => side[2]);
  const groups = (side) => side[1] ? Math.floor(config.head_dim / side[1]) : 1;
  const sum = (bytesOf, count) => heads * count * sides.reduce((total, side) => total + bytesOf(side), 0);
  return [
    [quantized ? "KV cache codes" : "KV cache", device, sum((side) => config.head_dim * side[0] / 8, cached)],
    ["KV cache scales", device, sum((side) => groups(side) * side[2], cached)],
    ["KV cache centres", device, sum((side) => side[3] * config.head_dim * 4, ask.users)],
  ].filter((term) => term[2]);
}

// calculator/questions/shares.py: each next layer goes to the card that has the most memory left
function planShares(model, whole, ask, cards) {
  const total = whole.num_hidden_layers;
  if (cards.length > total) return { refusal: `${cards.length} cards are more than the model's ${total} layers` };
  const planOf = (first, stop) => {
    const config = { ...whole, num_hidden_layers: stop - first, key: `${whole.key} ${first}-${stop}` };
    return planOne(model, config, ask, { first, stop, last: total, tied: whole.tie_word_embeddings, whole });
  };
  const place = (at) => at === 0 ? [0, 1] : at === cards.length - 1 ? [total - 1, total] : [1, 2];
  const one = planOf(0, 1);
  if (one.refusal) return one;
  const layerBytes = planOf(0, 2).gpu - one.gpu, counts = cards.map(() => 1);
  const left = cards.map((card, at) => card.bytes - planOf(...place(at)).gpu);
  for (let given = cards.length; given < total; given++) {
    const at = left.indexOf(Math.max(...left));
    counts[at]++;
    left[at] -= layerBytes;
  }
  let first = 0;
  const shares = cards.map((card, at) => {
    const made = planOf(first, first + counts[at]), share = { card, first, layers: counts[at], made, margin: card.bytes - made.gpu };
    first += counts[at];
    return share;
  });
  const tightest = shares.reduce((least, share) => share.margin < least.margin ? share : least);
  return { ...tightest.made, gpu: cards[0].bytes - tightest.margin, shares };
}

// calculator/questions/solve.py
export function maxContext(model, ask, cards) {
  const need = (context) => plan(model, { ...ask, context, prefix: Math.min(ask.prefix, context) }, cards).gpu;
  let low = 0, high = model.config.max_position_embeddings + 1;
  if (need(high - 1) <= cards[0].bytes) return high - 1;
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (need(middle) <= cards[0].bytes) low = middle; else high = middle;
  }
  return low;
}
