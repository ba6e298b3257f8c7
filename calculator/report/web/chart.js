// The picture of memory over context, with the card's limit.
import { $, COLOURS, drawn } from "./elements.js";
import { longestOf, modelOf } from "./question.js";
import { plan } from "./plan.js";
import { GIB, KIB, number, size } from "./units.js";

const LEFT = 64, RIGHT = 700, TOP = 20, BOTTOM = 340, STEPS = 40;
const STACK = [ // name, which terms, colour
  ["Weights", (name) => /^(embedding$|norms|linear|head)/.test(name), 0],
  ["KV cache", (name) => name.startsWith("KV"), 1],
  ["Workspace", (name) => /^(workspace|sampling)/.test(name), 2],
  ["CUDA, reserve", () => true, 7],
];

export function showChart(ask, cards) {
  const svg = $("chart"), [card] = cards, longest = longestOf(ask), first = Math.min(1024, longest);
  const contexts = Array.from({ length: STEPS + 1 }, (_, step) => Math.round(first * (longest / first) ** (step / STEPS)));
  const stacks = contexts.map((context) => stackOf(ask, cards, context)), sums = stacks.map(sumOf);
  const top = 1.05 * Math.max(card.bytes, ...sums);
  const x = (context) => LEFT + (RIGHT - LEFT) * (longest > first ? Math.log(context / first) / Math.log(longest / first) : 0);
  const y = (bytes) => BOTTOM - (BOTTOM - TOP) * bytes / top;
  svg.replaceChildren(...areas(contexts, stacks, x, y), ...axes(first, longest, top, x, y), ...limits(card, ask, first, x, y));
  svg.setAttribute("aria-label",
    `Memory over context: from ${size(sums[0])} at ${number(first)} tokens to ${size(sums[STEPS])} at ` +
    `${number(longest)}, and ${card.name} has ${size(card.bytes)}`);
}

const sumOf = (sums) => sums.reduce((a, b) => a + b);

function stackOf(ask, cards, context) {
  const made = plan(modelOf(ask), { ...ask, context, prefix: Math.min(ask.prefix, context) }, cards);
  const sums = STACK.map(() => 0);
  for (const [name, device, bytes] of made.terms) {
    if (device === "gpu") sums[STACK.findIndex(([, holds]) => holds(name))] += bytes;
  }
  return sums;
}

function areas(contexts, stacks, x, y) {
  let below = contexts.map(() => 0);
  return STACK.flatMap(([name, , colour], at) => {
    const above = below.map((bytes, place) => bytes + stacks[place][at]);
    const upper = contexts.map((context, place) => [x(context), y(above[place])]);
    const lower = contexts.map((context, place) => [x(context), y(below[place])]).reverse();
    const points = [...upper, ...lower].map((point) => point.map((value) => value.toFixed(1)).join(",")).join(" ");
    below = above;
    return [
      drawn("polygon", { points, fill: COLOURS[colour], "fill-opacity": 0.75 }),
      drawn("rect", { x: 715, y: 60 + 24 * at, width: 12, height: 12, fill: COLOURS[colour] }),
      drawn("text", { x: 732, y: 71 + 24 * at }, name),
    ];
  });
}

function axes(first, longest, top, x, y) {
  const made = [], unit = 2 ** Math.max(0, Math.ceil(Math.log2(top / GIB / 8)));
  for (let gib = 0; gib * GIB < top; gib += unit) {
    const at = y(gib * GIB);
    made.push(drawn("line", { x1: LEFT, x2: RIGHT, y1: at, y2: at, class: "axis" }));
    made.push(drawn("text", { x: LEFT - 8, y: at + 4, "text-anchor": "end" }, gib + " GiB"));
  }
  for (let context = first; context <= longest; context *= 4) {
    const text = context % KIB ? String(context) : context / KIB + "K";
    made.push(drawn("text", { x: x(context), y: 362, "text-anchor": "middle" }, text));
  }
  return made;
}

function limits(card, ask, first, x, y) {
  const at = y(card.bytes), made = [
    drawn("line", { x1: LEFT, x2: RIGHT, y1: at, y2: at, class: "limit" }),
    drawn("text", { x: RIGHT - 4, y: at - 6, "text-anchor": "end" }, card.name),
  ];
  if (ask.context >= first) {
    made.push(drawn("line", { x1: x(ask.context), x2: x(ask.context), y1: TOP, y2: BOTTOM, class: "now" }));
  }
  return made;
}
