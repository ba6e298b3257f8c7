"use strict";
// The plan of calculator/memory, formula by formula, so that the page answers without a network.
// tests/calculator/report/test_page.py compares it with Python on 2,000 random questions.
const Plan = (() => {
  const GROUP_SIZES = [128, 64, 32], PACK_BITS = 32, ALIGNMENT = 256, BLOCK = 512, MIB = 2 ** 20;
  const BITS = { int8: 8, int4: 4 };
  const KV = { // [bits, group or 0 for the whole head, bytes of each group, centred] of keys, values
    bf16: [[16, 0, 0, 0], [16, 0, 0, 0]],
    int8: [[8, 0, 2, 0], [8, 0, 2, 0]],
    k8v4: [[8, 0, 2, 0], [4, 64, 4, 0]],
    int4: [[4, 64, 4, 1], [4, 64, 4, 0]],
  };
  const ceil = (value, multiple) => Math.ceil(value / multiple) * multiple;
  const numel = (shape) => shape.reduce((product, size) => product * size, 1);

  // calculator/model/architecture.py
  function weightsOf(config) {
    const hidden = config.hidden_size, inner = config.intermediate_size;
    const queries = config.num_attention_heads * config.head_dim, keys = config.num_key_value_heads * config.head_dim;
    const found = [{ role: "embedding", shape: [config.vocab_size, hidden], layer: null }];
    for (let layer = 0; layer < config.num_hidden_layers; layer++) {
      const add = (role, ...shape) => found.push({ role, shape, layer });
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
    found.push({ role: "norm", shape: [hidden], layer: null });
    if (!config.tie_word_embeddings) found.push({ role: "head", shape: [config.vocab_size, hidden], layer: null });
    return found;
  }

  // calculator/model/formats.py: [name of the part, bytes] of each tensor of a weight
  const isQuantized = (role, ask) => role === "linear" ? ask.weights !== "bf16" : role === "head" && ask.head !== "bf16";
  function partsOf(weight, ask) {
    const count = numel(weight.shape), kind = weight.role === "head" ? ask.head : ask.weights;
    if (!isQuantized(weight.role, ask)) return [["", 2 * count]];
    const [outputs, inputs] = weight.shape;
    if (kind === "nf4") return [["codes", Math.ceil(count / 2)], ["code book", 64], ["scales", 4 * Math.ceil(count / 64)]];
    if (kind === "llm-int8") return [["codes", count], ["scales", 4 * outputs]];
    return [["codes", Math.ceil(count * BITS[kind] / 8)], ["scales", 2 * outputs * groupsOf(inputs, ask)]];
  }
  const groupsOf = (inputs, ask) => ask.group === "channel" ? 1 : Math.ceil(inputs / Number(ask.group));
  const NAMES = { embedding: "embedding", linear: "linear", head: "head", norm: "norms and biases", bias: "norms and biases" };
  function termName(weight, part) {
    const name = NAMES[weight.role];
    if (part) return name + " " + part;
    return name === "linear" ? "linear weights" : name;
  }

  function refusal(config, weights, ask) { // why the shapes cannot be stored so; "" where they can
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
  function splitConfig(config, gpus, tied) {
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

  // calculator/memory/workspace.py
  const MOMENTS = ["input", "attention norm", "projections", "append", "attention", "attention output", "feed-forward norm", "feed-forward", "feed-forward output", "head"];
  const mask = (...names) => names.reduce((bits, name) => bits | 1 << MOMENTS.indexOf(name), 0);
  const ALL = (1 << MOMENTS.length) - 1, LAYERS = ALL & ~mask("head"), INPUT = mask("input"), APPEND = mask("append"), NOW = mask("attention");
  const LINEARS = mask("projections", "attention output", "feed-forward", "feed-forward output", "head");
  const NORMS = mask("attention norm", "attention output", "feed-forward norm", "feed-forward output", "head");
  function stepBuffers(config, { batch, tokens, tile, logits, scratch, head }) {
    const C = config.hidden_size, D = config.head_dim, H = config.num_attention_heads, K = config.num_key_value_heads;
    const pairs = config.rotary_dim / 2, groups = Math.max(Math.floor(D / 64), 1), shared = H / K, rows = shared * tokens;
    const each = batch * tokens, heads = batch * K, out = head ? batch * logits * config.vocab_size : 0;
    const inner = config.intermediate_size, kept = mask("projections", "append"), last = mask("feed-forward output");
    return [
      ["token_ids", 8 * each, INPUT], ["hidden_states", 2 * each * C, ALL], ["angles", 8 * 2 * tokens * pairs, INPUT],
      ["frequencies", 8 * pairs, LAYERS], ["positions", 8 * tokens, INPUT], ["cached", 8 * batch, LAYERS],
      ["rotation", 4 * 2 * each * pairs, LAYERS], ["tile_angles", 8 * 2 * tile * pairs, INPUT], ["tile_positions", 8 * tile, INPUT],
      ["tile_rotation", 4 * 2 * tile * pairs, LAYERS], ["future", tokens * tokens, LAYERS], ["hadamard", 4 * 64 * 64, LAYERS],
      ["normed", 2 * each * C, NORMS | LINEARS & ~mask("head")], ["wide", 4 * each * C, NORMS], ["root_mean_square", 4 * each, NORMS],
      ["q", 2 * each * H * D, kept], ["k", 2 * each * K * D, kept], ["v", 2 * each * K * D, kept],
      ["half_rotated", 4 * heads * shared * tokens * pairs, APPEND], ["fresh", 4 * heads * tokens * D, APPEND],
      ["fresh_hadamard", 4 * heads * tokens * D, APPEND], ["fresh_codes", heads * tokens * D, APPEND], ["extremes", 4 * 3 * heads * tokens * groups, APPEND],
      ["queries", 4 * heads * rows * D, APPEND | NOW], ["keys", 4 * heads * tile * D, NOW], ["values", 4 * heads * tile * D, NOW],
      ["tile_codes", heads * tile * D, NOW], ["tile_scales", 4 * heads * tile * groups, NOW], ["tile_centers", 4 * heads * tile * D, NOW],
      ["start_center", 4 * heads * D, NOW], ["start_position", 8, NOW], ["start_angles", 8 * 2 * pairs, NOW], ["start_rotation", 4 * 2 * pairs, NOW],
      ["scores", 4 * heads * rows * tile, NOW], ["softmax", 4 * 4 * heads * rows, NOW], ["mixed", 4 * heads * rows * D, APPEND | NOW],
      ["mixed_hadamard", 4 * heads * rows * D, NOW], ["attended", 2 * each * H * D, NOW | mask("attention output")],
      ["delta", 2 * each * C, mask("attention output") | last], ["gate_up", 2 * each * 2 * inner, mask("feed-forward")],
      ["gated", 2 * each * inner, mask("feed-forward") | last], ["head_output", 2 * out, mask("head")], ["logits", 4 * out, mask("head")],
      ["scratch", scratch, LINEARS],
    ];
  }

  // calculator/memory/arena.py
  function placedBytes(buffers) {
    const placed = [];
    let top = 0;
    for (const [, size, alive] of [...buffers].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))) {
      let start = 0;
      for (const [otherStart, otherEnd, others] of placed) {
        if (!(alive & others) || otherEnd <= start) continue;
        if (start + size <= otherStart) break;
        start = ceil(otherEnd, ALIGNMENT);
      }
      let at = placed.findIndex((other) => other[0] > start);
      if (at < 0) at = placed.length;
      placed.splice(at, 0, [start, start + size, alive]);
      top = Math.max(top, start + size);
    }
    return top;
  }
  const arenas = new Map();
  function arenaBytes(config, ask, scratch, head) {
    const room = Math.min(ask.context, Math.max(ask.chunk, 2048, 256, 1 + ask.draft)), chunk = Math.min(ask.chunk, room), decoded = Math.min(1 + ask.draft, room);
    const key = [config.key, ask.users, chunk, room, decoded, scratch, head].join("|");
    if (!arenas.has(key)) {
      if (arenas.size > 5000) arenas.clear();
      const step = (tokens, tile, logits) => placedBytes(stepBuffers(config, { batch: ask.users, tokens, tile: Math.min(tile, room), logits, scratch, head }));
      arenas.set(key, Math.max(step(chunk, 256, 1), step(decoded, 2048, decoded)));
    }
    return arenas.get(key);
  }

  // calculator/memory/allocator.py
  function reservedBytes(sizes) {
    let reserved = 0;
    const free = { true: [], false: [] };
    for (let size of sizes) {
      size = ceil(size, BLOCK);
      const small = size <= MIB, blocks = free[small], best = blocks.findIndex((block) => block >= size);
      const block = best < 0 ? (small ? 2 * MIB : size < 10 * MIB ? 20 * MIB : ceil(size, 2 * MIB)) : blocks.splice(best, 1)[0];
      if (best < 0) reserved += block;
      const rest = block - size;
      if (small ? rest >= BLOCK : rest > MIB) {
        const at = blocks.findIndex((other) => other > rest);
        blocks.splice(at < 0 ? blocks.length : at, 0, rest);
      }
    }
    return reserved;
  }

  // calculator/memory/plan.py
  const listed = new Map();
  function listWeights(model, config, ask, hostLayers) {
    const key = [config.key, model.name, ask.weights, ask.head, ask.group, ask.embedding, hostLayers].join("|");
    if (listed.has(key)) return listed.get(key);
    if (listed.size > 400) listed.clear();
    const weights = model.stored || weightsOf(config), terms = new Map(), requests = [];
    let open = null, layerBlock = 0, sum = 0, scratch = 0;
    const why = model.stored ? "" : refusal(config, weights, ask);
    for (const weight of weights) {
      const device = weight.role === "embedding" ? ask.embedding : weight.layer !== null && weight.layer < hostLayers ? "host" : "gpu";
      const parts = weight.parts || partsOf(weight, ask);
      if (weight.layer !== open) { if (layerBlock) requests.push(layerBlock); layerBlock = 0; open = weight.layer; }
      for (const [part, bytes] of parts) {
        const term = termName(weight, part) + "|" + device;
        terms.set(term, (terms.get(term) || 0) + bytes);
        if (device !== "gpu") continue;
        sum += bytes;
        if (weight.layer === null) requests.push(bytes); else layerBlock += ceil(bytes, BLOCK);
      }
      if (weight.scratch) scratch = Math.max(scratch, weight.scratch);
      else if (!model.stored && isQuantized(weight.role, ask)) {
        const [outputs, inputs] = weight.shape, kind = weight.role === "head" ? ask.head : ask.weights;
        const groups = kind === "nf4" ? Math.ceil(inputs / 64) : kind === "llm-int8" ? 1 : groupsOf(inputs, ask);
        const rows = Math.min(outputs, Math.max(Math.floor(2 ** 21 / inputs / 32), 1) * 32);
        scratch = Math.max(scratch, rows * (inputs * 8 + groups * 8));
      }
    }
    if (layerBlock) requests.push(layerBlock);
    const found = { terms: [...terms], slack: reservedBytes(requests) - sum, scratch, why };
    listed.set(key, found);
    return found;
  }

  function plan(model, ask) {
    const tied = model.stored ? model.tied : model.config.tie_word_embeddings && ask.head === "bf16";
    let whole = { ...model.config, key: model.name + (tied ? " tied" : ""), tie_word_embeddings: tied };
    const config = splitConfig(whole, ask.gpus, tied);
    if (config.refusal) return { refusal: config.refusal };
    config.key = whole.key + " " + ask.gpus;
    if (tied && ask.embedding === "host") return { refusal: "the head is tied to the embedding: both are on the GPU" };
    if (ask.gpus > 1 && ask.layers !== null) return { refusal: "layers on the host are for one card" };
    if (ask.gpus > 1 && model.stored) return { refusal: "the page divides no stored formats: glm4q calc --gpus does" };
    const hostLayers = ask.layers === null ? 0 : config.num_hidden_layers - ask.layers;
    const weights = listWeights(model, config, ask, hostLayers);
    if (weights.why) return { refusal: weights.why };
    const terms = weights.terms.map(([key, bytes]) => [...key.split("|"), bytes]);
    const runs = [...(hostLayers ? [["host", hostLayers]] : []), ["gpu", config.num_hidden_layers - hostLayers]];
    for (const [device, layers] of runs) terms.push(...kvTerms(config, ask, device, layers));
    for (const [device] of runs) terms.push(["workspace", device, arenaBytes(config, ask, weights.scratch, device === "gpu")]);
    terms.push(["sampling", "gpu", 44 * ask.users * config.vocab_size]);
    if (ask.embedding === "host") terms.push(["embedding rows", "host", 2 * ask.users * Math.min(ask.chunk, ask.context) * config.hidden_size]);
    terms.push(["CUDA context", "gpu", 457 * MIB], ["allocator slack", "gpu", weights.slack + 8 * MIB + 22 * MIB]);
    terms.push(["reserve", "gpu", ask.reserve]);
    const total = (device) => terms.reduce((sum, [, on, bytes]) => on === device ? sum + bytes : sum, 0);
    return { terms: terms.filter((term) => term[2]), gpu: total("gpu"), host: total("host"), config, ask };
  }
  function kvTerms(config, ask, device, layers) {
    const heads = layers * config.num_key_value_heads, cached = ask.prefix + ask.users * (ask.context - ask.prefix), sides = KV[ask.kv];
    const quantized = sides.some((side) => side[2]);
    const groups = (side) => side[1] ? Math.floor(config.head_dim / side[1]) : 1;
    const sum = (bytesOf, count) => heads * count * sides.reduce((total, side) => total + bytesOf(side), 0);
    return [
      [quantized ? "KV cache codes" : "KV cache", device, sum((side) => config.head_dim * side[0] / 8, cached)],
      ["KV cache scales", device, sum((side) => groups(side) * side[2], cached)],
      ["KV cache centres", device, sum((side) => side[3] * config.head_dim * 4, ask.users)],
    ].filter((term) => term[2]);
  }

  // calculator/cards/roofline.py
  function stepBytes(made, device, depth) {
    const { ask, terms } = made, tied = !terms.some(([name]) => name.startsWith("head"));
    let read = 0, cached = 0;
    for (const [name, on, bytes] of terms) {
      if (on !== device) continue;
      if (name.startsWith("KV cache")) cached += bytes;
      else if (name.startsWith("linear") || name.startsWith("head") || name.startsWith("norms") || (tied && name === "embedding")) read += bytes;
    }
    const tokens = ask.prefix + ask.users * (ask.context - ask.prefix);
    return read + Math.floor(cached * ask.users * Math.min(depth, ask.context) / tokens);
  }
  function decode(made, card, depth) { // [low, high] tokens a second, null where the card's speed is not known
    if (!card.bandwidth) return null;
    const config = made.config, queries = config.num_attention_heads * config.head_dim, keys = config.num_key_value_heads * config.head_dim;
    const layer = config.hidden_size * (2 * queries + 2 * keys + 3 * config.intermediate_size);
    const flops = 2 * config.num_hidden_layers * (layer + 2 * queries * depth);
    const moved = stepBytes(made, "gpu", depth) / card.bandwidth + stepBytes(made, "host", depth) / card.host;
    const seconds = Math.max(moved, made.ask.users * flops / card.flops);
    return [0.45 / seconds, 0.85 / seconds];
  }

  function maxContext(model, ask, bytes) {
    const need = (context) => plan(model, { ...ask, context, prefix: Math.min(ask.prefix, context) }).gpu;
    let low = 0, high = model.config.max_position_embeddings + 1;
    if (need(high - 1) <= bytes) return high - 1;
    while (high - low > 1) {
      const middle = Math.floor((low + high) / 2);
      if (need(middle) <= bytes) low = middle; else high = middle;
    }
    return low;
  }
  const kvBits = (kv) => KV[kv][0][0] + KV[kv][1][0];
  return { plan, decode, maxContext, kvBits, KV: Object.keys(KV), GROUP_SIZES };
})();
