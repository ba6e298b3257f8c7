// The block of memory for a step, and what an allocator takes: calculator/memory, formula by formula.
import { ceilTo } from "./weights.js";

const ALIGNMENT = 256;
export const BLOCK = 512;
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
    ["frequencies", 8 * pairs, LAYERS], ["positions", 8 * tokens, INPUT], ["cached", 8 * batch, LAYERS], ["cache_rows", 8 * batch, LAYERS],
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
      start = ceilTo(otherEnd, ALIGNMENT);
    }
    let at = placed.findIndex((other) => other[0] > start);
    if (at < 0) at = placed.length;
    placed.splice(at, 0, [start, start + size, alive]);
    top = Math.max(top, start + size);
  }
  return top;
}
const arenas = new Map();
export function arenaBytes(config, ask, scratch, head) {
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
export function reservedBytes(sizes) {
  let reserved = 0;
  const free = { true: [], false: [] };
  for (let size of sizes) {
    size = ceilTo(size, BLOCK);
    const small = size <= 2 ** 20, blocks = free[small], best = blocks.findIndex((block) => block >= size);
    const block = best < 0 ? (small ? 2 * 2 ** 20 : size < 10 * 2 ** 20 ? 20 * 2 ** 20 : ceilTo(size, 2 * 2 ** 20)) : blocks.splice(best, 1)[0];
    if (best < 0) reserved += block;
    const rest = block - size;
    if (small ? rest >= BLOCK : rest > 2 ** 20) {
      const at = blocks.findIndex((other) => other > rest);
      blocks.splice(at < 0 ? blocks.length : at, 0, rest);
    }
  }
  return reserved;
}
