// The weights of a model, and their bytes in each format: calculator/model, formula by formula.
const PACK_BITS = 32, BITS = { int8: 8, int4: 4 };
export const KV = { // [bits, group or 0 for the whole head, bytes of each group, centred] of keys, values
  bf16: [[16, 0, 0, 0], [16, 0, 0, 0]],
  int8: [[8, 0, 2, 0], [8, 0, 2, 0]],
  k8v4: [[8, 0, 2, 0], [4, 64, 4, 0]],
  int4: [[4, 64, 4, 1], [4, 64, 4, 0]],
};
export const KV_NAMES = Object.keys(KV);
export const kvBits = (kv) => KV[kv][0][0] + KV[kv][1][0];
export const ceilTo = (value, multiple) => Math.ceil(value / multiple) * multiple;
const numel = (shape) => shape.reduce((product, size) => product * size, 1);

// calculator/model/architecture.py
export function weightsOf(config) {
  const hidden = config.hidden_size, inner = config.intermediate_size;
  const queries = config.num_attention_heads * config.head_dim, keys = config.num_key_value_heads * config.head_dim;
  const all = [{ role: "embedding", shape: [config.vocab_size, hidden], layer: null }];
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    const add = (role, ...shape) => all.push({ role, shape, layer });
    add("norm", hidden);
    for (const outputs of [queries, keys, keys]) {
      add("linear", outputs, hidden);
      if (config.attention_bias) add("bias", outputs);
    }
    add("linear", hidden, queries);
    if (config.model_type === "glm4") add("norm", hidden);
    add("norm", hidden);
    add("linear", 2 * inner, hidden);
    add("linear", hidden, inner);
    if (config.model_type === "glm4") add("norm", hidden);
  }
  all.push({ role: "norm", shape: [hidden], layer: null });
  if (!config.tie_word_embeddings) all.push({ role: "head", shape: [config.vocab_size, hidden], layer: null });
  return all;
}

// calculator/model/formats.py: [name of the part, bytes] of each tensor of a weight
export const isQuantized = (role, ask) => role === "linear" ? ask.weights !== "bf16" : role === "head" && ask.head !== "bf16";
export function partsOf(weight, ask) {
  const count = numel(weight.shape), kind = weight.role === "head" ? ask.head : ask.weights;
  if (!isQuantized(weight.role, ask)) return [["", 2 * count]];
  const [outputs, inputs] = weight.shape;
  if (kind === "nf4") return [["codes", Math.ceil(count / 2)], ["code book", 64], ["scales", 4 * Math.ceil(count / 64)]];
  if (kind === "llm-int8") return [["codes", count], ["scales", 4 * outputs]];
  return [["codes", Math.ceil(count * BITS[kind] / 8)], ["scales", 2 * outputs * groupsOf(inputs, ask)]];
}
export const groupsOf = (inputs, ask) => ask.group === "channel" ? 1 : Math.ceil(inputs / Number(ask.group));
const NAMES = { embedding: "embedding", linear: "linear", head: "head", norm: "norms and biases", bias: "norms and biases" };
export function termName(weight, part) {
  const name = NAMES[weight.role];
  if (part) return name + " " + part;
  return name === "linear" ? "linear weights" : name;
}

export function refusal(config, weights, ask) { // why the shapes cannot be stored so; "" where they can
  for (const weight of weights) {
    const kind = weight.role === "head" ? ask.head : ask.weights;
    if (!isQuantized(weight.role, ask) || !(kind in BITS)) continue;
    const [outputs, inputs] = weight.shape, pack = PACK_BITS / BITS[kind];
    if (ask.group !== "channel" && inputs % Number(ask.group)) return `groups of ${ask.group} do not divide ${inputs} inputs`;
    if (inputs % pack || outputs % pack) return `${kind} packs ${pack} numbers, which do not divide ${outputs} x ${inputs}`;
  }
  for (const side of KV[ask.kv]) if (side[1] && config.head_dim % side[1]) return `a ${ask.kv} cache needs heads of a multiple of ${side[1]}`;
  return "";
}

// calculator/model/tensor_parallel.py
export function splitConfig(config, gpus, tied) {
  if (gpus === 1) return config;
  const heads = config.num_key_value_heads;
  for (const [name, whole] of [["attention heads", config.num_attention_heads], ["feed-forward columns", config.intermediate_size]])
    if (whole % gpus) return { refusal: `${gpus} cards do not divide ${whole} ${name}` };
  if (heads % gpus && gpus % heads) return { refusal: `${gpus} cards do not divide ${heads} key/value heads` };
  return {
    ...config,
    num_attention_heads: config.num_attention_heads / gpus,
    intermediate_size: config.intermediate_size / gpus,
    num_key_value_heads: Math.max(Math.floor(heads / gpus), 1),
    vocab_size: Math.ceil(config.vocab_size / gpus / 64) * 64,
    tie_word_embeddings: tied,
  };
}
