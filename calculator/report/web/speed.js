// Bounds on speed from the bytes of a plan: calculator/cards/roofline.py, formula by formula.
// What one decoding step reads. A head that is tied to the embedding reads all of the embedding.
function stepBytes(made, device, depth) {
  const { ask, terms, config } = made;
  const tied = config.tie_word_embeddings && !terms.some(([name]) => name.startsWith("head"));
  let read = 0, cached = 0;
  for (const [name, on, bytes] of terms) {
    if (on !== device) continue;
    if (name.startsWith("KV cache")) cached += bytes;
    else if (/^(linear|head|norms)/.test(name) || (tied && name === "embedding")) read += bytes;
  }
  const tokens = ask.prefix + ask.users * (ask.context - ask.prefix);
  return read + Math.floor(cached * ask.users * Math.min(depth, ask.context) / tokens);
}

function stepSeconds(made, card, depth) {
  const { config } = made;
  const queries = config.num_attention_heads * config.head_dim, keys = config.num_key_value_heads * config.head_dim;
  const layer = config.hidden_size * (2 * queries + 2 * keys + 3 * config.intermediate_size);
  const flops = 2 * config.num_hidden_layers * (layer + 2 * queries * depth);
  const moved = stepBytes(made, "gpu", depth) / card.bandwidth + stepBytes(made, "host", depth) / card.host;
  return Math.max(moved, made.ask.users * flops / card.flops);
}

// [low, high] tokens a second of each user; null where the speed of a card is not known.
// A token passes one after another through cards that divide the layers.
export function decode(made, card, depth) {
  const parts = made.shares ? made.shares.map((share) => [share.made, share.card]) : [[made, card]];
  if (parts.some(([, each]) => !each.bandwidth)) return null;
  return [0, 1].map((end) =>
    1 / parts.reduce((sum, [part, each]) => sum + stepSeconds(part, each, depth) / each.efficiency[end], 0));
}
