"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a63d2", "#7a8288", "#b8860b", "#4c9a8f", "#c04f6b", "#5f7f2f", "#9a9a9a", "#6b4c9a"];
const GIB = 2 ** 30, MIB = 2 ** 20, KIB = 2 ** 10, TIGHT = GIB;
const NUMBERS = ["context", "users", "prefix", "chunk", "draft", "reserve", "gpus"], WORDS = ["model", "weights", "group", "head", "kv", "embedding", "card"];
const MARKS = [[1024, "1K"], [8192, "8K"], [32768, "32K"], [64512, "63K"], [128000, "125K"], [131072, "128K"]];
const KINDS = [["bf16", "bf16"], ["bf16", "int8"], ["int8", "bf16"], ["int8", "int8"], ["int4", "bf16"], ["int4", "int8"], ["llm-int8", "bf16"], ["nf4", "bf16"]];
const modelOf = (ask) => data.models[ask.model];
let state = { ...data.start }, sort = { offers: ["bytes", 1], variants: ["rank", -1] };

function fixed(value, digits) { // a half goes to the even digit, as in Python
  const scaled = Math.abs(value) * 10 ** digits, low = Math.floor(scaled);
  const rounded = scaled - low === 0.5 ? low + low % 2 : Math.round(scaled);
  return (value < 0 ? "-" : "") + (rounded / 10 ** digits).toFixed(digits);
}
function size(bytes) {
  if (bytes < 0) return "-" + size(-bytes);
  // A unit begins at 1000 of the one below, as in calculator/units.py.
  for (const [unit, name, digits] of [[GIB, "GiB", 2], [MIB, "MiB", 1], [KIB, "KiB", 1]]) if (bytes / unit >= 1000 / 1024) return fixed(bytes / unit, digits) + " " + name;
  return bytes + " B";
}
const number = (count) => count.toLocaleString("en-US");
const verdict = (margin) => margin < 0 ? "no" : margin < TIGHT ? "tight" : "fits";
const bandWords = (band) => band ? band.map((speed) => fixed(speed, band[1] >= 10 ? 0 : 1)).join(" to ") : "";
const cardOf = (name) => data.cards.find((card) => card.name.toLowerCase() === name.trim().toLowerCase());
function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}
function row(cells) { const made = element("tr"); made.append(...cells); return made; }
function option(select, value, text) { const made = element("option", text); made.value = value; select.append(made); }

// The state: from the URL's fragment, from the pickers, and back
function stateOf(fragment) {
  const given = Object.fromEntries(new URLSearchParams(fragment)), found = { ...data.start };
  for (const name of NUMBERS) if (/^\d{1,9}$/.test(given[name] ?? "")) found[name] = Number(given[name]);
  for (const name of WORDS) if (name in given) found[name] = given[name];
  if ("layers" in given) found.layers = /^\d{1,4}$/.test(given.layers) ? Number(given.layers) : null;
  return valid(found);
}
function valid(ask) {
  if (!(ask.model in data.models)) ask.model = data.start.model;
  const model = modelOf(ask), longest = model.config.max_position_embeddings;
  const clamp = (value, low, high) => Math.min(Math.max(Math.floor(value) || low, low), high);
  ask.context = clamp(ask.context, 1, longest);
  ask.users = clamp(ask.users, 1, 512);
  ask.prefix = clamp(ask.prefix, 0, ask.context);
  ask.chunk = clamp(ask.chunk, 1, 16384);
  ask.draft = ask.users > 1 ? 0 : clamp(ask.draft, 0, 31);
  ask.reserve = clamp(ask.reserve, 0, 65536 * MIB);
  ask.gpus = [1, 2, 4, 8].includes(ask.gpus) ? ask.gpus : 1;
  ask.layers = ask.layers === null || ask.gpus > 1 ? null : clamp(ask.layers, 0, model.config.num_hidden_layers);
  const oneOf = (name, known) => { if (!known.includes(ask[name])) ask[name] = known[0]; };
  oneOf("weights", model.stored ? ["as stored"] : ["bf16", "int8", "int4", "nf4", "llm-int8"]);
  oneOf("head", model.stored ? ["as stored"] : ["bf16", "int8"]);
  oneOf("group", ["128", "64", "32", "channel"]);
  oneOf("kv", Plan.KV);
  oneOf("embedding", ["gpu", "host"]);
  ask.card = (cardOf(ask.card) || cardOf(data.start.card)).name;
  return ask;
}
const fragmentOf = (ask) => new URLSearchParams([...WORDS, ...NUMBERS, "layers"].map((name) => [name, ask[name] ?? "all"])).toString();
function read() {
  const ask = { ...state };
  for (const name of ["model", "weights", "group", "head", "kv", "embedding"]) ask[name] = $(name).value;
  for (const name of ["context", "users", "prefix", "chunk", "draft", "gpus"]) ask[name] = Number($(name).value);
  ask.reserve = Number($("reserve").value) * MIB;
  ask.layers = $("layers").value === "" ? null : Number($("layers").value);
  ask.card = cardOf($("card").value) ? $("card").value : state.card;
  return valid(ask);
}
const toSlider = (context, longest) => Math.round(1000 * Math.log(context) / Math.log(Math.max(longest, 2)));
const fromSlider = (place, longest) => Math.round(longest ** (place / 1000));
function fill() {
  const model = modelOf(state), longest = model.config.max_position_embeddings;
  for (const [name, values] of [["weights", model.stored ? ["as stored"] : ["bf16", "int8", "int4", "nf4", "llm-int8"]], ["head", model.stored ? ["as stored"] : ["bf16", "int8"]]]) {
    $(name).replaceChildren(); values.forEach((value) => option($(name), value, value));
  }
  for (const name of [...WORDS, ...NUMBERS]) if (document.activeElement !== $(name) || $(name).type !== "text" && name !== "card") $(name).value = state[name];
  if (document.activeElement !== $("card")) $("card").value = state.card;
  $("reserve").value = state.reserve / MIB;
  $("layers").value = state.layers ?? "";
  $("slider").value = toSlider(state.context, longest);
  $("slider").setAttribute("aria-valuetext", number(state.context) + " tokens");
  $("context").max = longest;
  $("marks").replaceChildren(...MARKS.filter(([count]) => count <= longest).map(([count, text]) => {
    const made = element("button", text); made.type = "button"; made.dataset.context = count;
    made.setAttribute("aria-pressed", state.context === count);
    return made;
  }));
}

// What is shown
function showAnswer(made, card) {
  const margin = card.bytes - made.gpu, word = verdict(margin), box = $("verdict");
  $("need").textContent = size(made.gpu); $("need").dataset.bytes = made.gpu;
  $("of").textContent = state.gpus > 1 ? `Required VRAM of each of ${state.gpus} cards` : "Required VRAM";
  box.className = word; box.dataset.margin = margin; box.dataset.verdict = word;
  const words = { fits: "It fits, ", tight: "Tight, ", no: "It does not fit, " };
  box.textContent = words[word] + size(Math.abs(margin)) + (margin < 0 ? " too much" : " left") + " of " + size(card.bytes) + " on " + (state.gpus > 1 ? state.gpus + " x " : "") + card.name;
  const full = Plan.decode(made, card, state.context), most = Plan.maxContext(modelOf(state), state, card.bytes);
  $("speed").textContent = (full ? `Decode: ${bandWords(full)} tokens a second with a full context. ` : "") + (most ? `The longest context of this variant is ${number(most)} tokens.` : "No context of this variant fits.");
  $("speed").dataset.low = full ? full[0] : ""; $("speed").dataset.high = full ? full[1] : ""; $("speed").dataset.most = most;
  $("notes").replaceChildren(...card.notes.map((note) => element("p", note)));
}
function showTerms(made, card) {
  const whole = Math.max(made.gpu, card.bytes), bar = $("bar"), body = $("terms").tBodies[0], foot = $("terms").tFoot;
  bar.replaceChildren(); body.replaceChildren(); foot.replaceChildren();
  made.terms.forEach(([name, device, bytes], place) => {
    const colour = device === "gpu" ? COLOURS[place % COLOURS.length] : "transparent";
    const key = element("span", "", "key"); key.style.background = colour;
    const first = element("td", "", "name"); first.append(key, name);
    const line = row([first, element("td", device === "gpu" ? "GPU" : "host"), element("td", number(bytes), "number"), element("td", size(bytes), "number")]);
    line.dataset.term = name; line.dataset.device = device; line.dataset.bytes = bytes; body.append(line);
    if (device !== "gpu") return;
    const part = element("span"); part.style.background = colour; part.style.width = 100 * bytes / whole + "%"; part.title = name + " " + size(bytes); bar.append(part);
  });
  const limit = element("div"); limit.id = "limit"; limit.style.left = "calc(" + 100 * card.bytes / whole + "% - 3px)"; bar.append(limit);
  bar.setAttribute("aria-label", `${size(made.gpu)} of ${size(card.bytes)}`);
  for (const device of ["gpu", "host"]) {
    const count = element("td", number(made[device]), "number"); count.dataset.bytes = made[device]; count.id = "total-" + device;
    foot.append(row([element("td", "total " + (device === "gpu" ? "GPU" : "host")), element("td"), count, element("td", size(made[device]), "number")]));
  }
}
function variantsOf(card) {
  const kinds = modelOf(state).stored ? [["as stored", "as stored"]] : KINDS, found = [];
  for (const [weights, head] of kinds) for (const kv of Plan.KV) {
    let best = null;
    for (const embedding of ["gpu", "host"]) {
      const made = Plan.plan(modelOf(state), { ...state, weights, head, kv, embedding });
      if (made.refusal) continue;
      const margin = card.bytes - made.gpu;
      if (!best || best.margin < TIGHT) best = { weights, head, kv, embedding, margin, bytes: made.gpu, made };
    }
    if (best) found.push(best);
  }
  for (const each of found) {
    const short = Plan.decode(each.made, card, Math.min(1024, state.context)), full = Plan.decode(each.made, card, state.context);
    const bits = { bf16: 16, int8: 8, int4: 4, nf4: 4, "llm-int8": 8 }[each.weights] ?? 0, cache = Plan.kvBits(each.kv), headBits = each.head === "int8" ? 8 : 16;
    each.speed = full ? full[1] : 0; each.full = full; each.bits = bits; each.cache = cache;
    // calculator/questions/variants.py ranks by the same rules.
    const fine = cache >= 16;
    each.keys = [each.margin >= 0, fine, each.margin >= TIGHT, bits >= 8, ...(fine ? [] : [cache]), short ? Number(fixed(short[1], 1)) : 0, bits, cache, headBits, !["nf4", "llm-int8"].includes(each.weights)];
  }
  found.sort((a, b) => { for (let at = 0; at < a.keys.length; at++) if (a.keys[at] !== b.keys[at]) return b.keys[at] - a.keys[at]; return 0; });
  found.forEach((each, place) => { each.rank = -place; });
  return found;
}
function header(table, columns) {
  const cells = columns.map(([key, text, className]) => {
    const made = element("th", undefined, className); made.scope = "col";
    if (!key) { made.textContent = text; return made; }
    const button = element("button", text); button.type = "button"; button.dataset.sort = key; button.dataset.table = table;
    const [by, way] = sort[table];
    made.setAttribute("aria-sort", by === key ? way > 0 ? "ascending" : "descending" : "none");
    made.append(button);
    return made;
  });
  $(table).tHead.replaceChildren(row(cells));
}
function sorted(table, rows) {
  const [by, way] = sort[table];
  const value = (each) => each[by] ?? Infinity;
  return [...rows].sort((a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0) * way);
}
function showVariants(found) {
  header("variants", [["bits", "Weights"], [null, "Head"], ["cache", "KV"], [null, "Embedding"], ["bytes", "Required", "number"], ["margin", "Left", "number"], [null, "Verdict"], ["speed", "Tokens/s", "number"], ["bits", "Bits", "number"], ["rank", "Best first"]]);
  $("variants").tBodies[0].replaceChildren(...sorted("variants", found).map((each) => {
    const word = verdict(each.margin), pick = element("button", "choose");
    pick.type = "button"; pick.dataset.pick = JSON.stringify({ weights: each.weights, head: each.head, kv: each.kv, embedding: each.embedding });
    pick.setAttribute("aria-label", `choose ${each.weights}, ${each.head} head, ${each.kv} KV`);
    const last = element("td"); last.append(pick);
    const made = row([element("td", each.weights), element("td", each.head), element("td", each.kv), element("td", each.embedding === "gpu" ? "GPU" : "host"), element("td", size(each.bytes), "number"),
      element("td", size(each.margin), "number"), element("td", word, word), element("td", bandWords(each.full), "number"), element("td", each.bits ? `${each.bits} + ${each.cache / 2}` : "", "number"), last]);
    made.dataset.variant = [each.weights, each.head, each.kv].join("|"); made.dataset.margin = each.margin;
    return made;
  }));
  const best = found.find((each) => each.margin >= 0);
  $("best").textContent = best ? `Best on this card: ${best.weights} weights, ${best.head} head, ${best.kv} KV cache, embedding on the ${best.embedding === "gpu" ? "GPU" : "host"}.` : "No variant fits this card at this context.";
  $("best").dataset.variant = best ? [best.weights, best.head, best.kv, best.embedding].join("|") : "";
}
function showOffers(made) {
  header("offers", [["name", "Card"], [null, "Verdict"], ["bytes", "Memory", "number"], ["left", "Left", "number"], ["speed", "Tokens/s", "number"], ["watts", "Power", "number"], ["usd", "Launch price", "number"], ["year", "Year", "number"]]);
  const fitting = data.cards.filter((card) => card.bytes >= made.gpu && card.bandwidth).map((card) => {
    const full = Plan.decode(made, card, state.context);
    return { ...card, left: card.bytes - made.gpu, full, speed: full[1] };
  });
  $("offers").tBodies[0].replaceChildren(...sorted("offers", fitting).map((card) => {
    const word = verdict(card.left);
    const line = row([element("td", card.cuda ? card.name : card.name + " *"), element("td", word, word), element("td", size(card.bytes), "number"), element("td", size(card.left), "number"), element("td", bandWords(card.full), "number"),
      element("td", card.watts ? card.watts + " W" : "", "number"), element("td", card.usd ? "$" + number(card.usd) : "", "number"), element("td", card.year ? String(card.year) : "", "number")]);
    line.dataset.card = card.name; line.dataset.left = card.left;
    return line;
  }));
  const smallest = fitting.filter((card) => card.cuda).sort((a, b) => a.bytes - b.bytes || (a.watts ?? 0) - (b.watts ?? 0))[0];
  $("smallest").textContent = smallest ? `The smallest card that holds it: ${smallest.name}.` : "No card of the list holds it.";
}
const STACK = [["Weights", (name) => /^(embedding$|norms|linear|head)/.test(name), 0], ["KV cache", (name) => name.startsWith("KV"), 1], ["Workspace", (name) => /^(workspace|sampling)/.test(name), 2], ["CUDA, reserve", () => true, 7]];
function showChart(card) {
  const svg = $("chart"), model = modelOf(state), longest = model.config.max_position_embeddings, LEFT = 64, RIGHT = 700, TOP = 20, BOTTOM = 340, STEPS = 40;
  const first = Math.min(1024, longest), node = (tag, given, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(given)) made.setAttribute(name, value);
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const contexts = Array.from({ length: STEPS + 1 }, (_, step) => Math.round(first * (longest / first) ** (step / STEPS)));
  const stacks = contexts.map((context) => {
    const made = Plan.plan(model, { ...state, context, prefix: Math.min(state.prefix, context) }), sums = STACK.map(() => 0);
    for (const [name, device, bytes] of made.terms) if (device === "gpu") sums[STACK.findIndex(([, holds]) => holds(name))] += bytes;
    return sums;
  });
  const top = 1.05 * Math.max(card.bytes, ...stacks.map((sums) => sums.reduce((a, b) => a + b)));
  const x = (context) => LEFT + (RIGHT - LEFT) * (longest > first ? Math.log(context / first) / Math.log(longest / first) : 0), y = (bytes) => BOTTOM - (BOTTOM - TOP) * bytes / top;
  svg.replaceChildren();
  let below = contexts.map(() => 0);
  STACK.forEach(([name, , colour], at) => {
    const above = below.map((bytes, place) => bytes + stacks[place][at]);
    const points = [...contexts.map((context, place) => [x(context), y(above[place])]), ...contexts.map((context, place) => [x(context), y(below[place])]).reverse()];
    svg.append(node("polygon", { points: points.map((point) => point.map((value) => value.toFixed(1)).join(",")).join(" "), fill: COLOURS[colour], "fill-opacity": 0.75 }));
    svg.append(node("rect", { x: 715, y: 60 + 24 * at, width: 12, height: 12, fill: COLOURS[colour] }), node("text", { x: 732, y: 71 + 24 * at }, name));
    below = above;
  });
  const unit = 2 ** Math.max(0, Math.ceil(Math.log2(top / GIB / 8)));
  for (let gib = 0; gib * GIB < top; gib += unit) {
    svg.append(node("line", { x1: LEFT, x2: RIGHT, y1: y(gib * GIB), y2: y(gib * GIB), class: "axis" }), node("text", { x: LEFT - 8, y: y(gib * GIB) + 4, "text-anchor": "end" }, gib + " GiB"));
  }
  for (let context = first; context <= longest; context *= 4) svg.append(node("text", { x: x(context), y: 362, "text-anchor": "middle" }, context % KIB ? String(context) : context / KIB + "K"));
  svg.append(node("line", { x1: LEFT, x2: RIGHT, y1: y(card.bytes), y2: y(card.bytes), class: "limit" }), node("text", { x: RIGHT - 4, y: y(card.bytes) - 6, "text-anchor": "end" }, card.name));
  if (state.context >= first) svg.append(node("line", { x1: x(state.context), x2: x(state.context), y1: TOP, y2: BOTTOM, class: "now" }));
  svg.setAttribute("aria-label", `Memory over context: from ${size(stacks[0].reduce((a, b) => a + b))} at ${number(first)} tokens to ${size(stacks[STEPS].reduce((a, b) => a + b))} at ${number(longest)}, and ${card.name} has ${size(card.bytes)}`);
}
function commandOf(ask) {
  const model = modelOf(ask), words = ["glm4q calc", model.argument], quoted = (word) => /^[\w.,/+-]+$/.test(word) ? word : `'${word}'`;
  if (!model.stored) {
    words.push("--weights", ask.weights);
    if (ask.group !== "128" && (["int8", "int4"].includes(ask.weights) || ask.head === "int8")) words.push("--group-size", ask.group);
    if (ask.head !== "bf16") words.push("--lm-head", ask.head);
  }
  words.push("--kv", ask.kv, "--context", ask.context);
  for (const [option, name, plain] of [["--users", "users", 1], ["--shared-prefix", "prefix", 0], ["--prefill-chunk", "chunk", 512], ["--draft", "draft", 0]]) if (ask[name] !== plain) words.push(option, ask[name]);
  if (ask.layers !== null) words.push("--gpu-layers", ask.layers);
  words.push("--embedding", ask.embedding);
  if (ask.reserve !== 256 * MIB) words.push("--reserve", ask.reserve ? ask.reserve / MIB + "M" : "0");
  if (ask.gpus > 1) words.push("--gpus", ask.gpus);
  return words.concat(cardOf(ask.card).arguments.map(quoted)).join(" ");
}
function show() {
  const card = cardOf(state.card);
  let made = Plan.plan(modelOf(state), state);
  fill();
  const refused = $("verdict");
  if (made.refusal) {
    refused.className = "no"; refused.textContent = "This cannot be: " + made.refusal; refused.dataset.verdict = "refused"; $("need").textContent = "-";
  } else {
    showAnswer(made, card); showTerms(made, card); showChart(card); showOffers(made); showVariants(variantsOf(card));
  }
  $("title").textContent = modelOf(state).name + ": does it fit?";
  $("quality").textContent = modelOf(state).quality || "Bits: of the weights + of each number of the cache. No loss was measured on this model yet.";
  $("command").textContent = commandOf(state);
  $("link").href = "#" + fragmentOf(state);
}
let waiting = 0;
function remember() { // browsers limit how often the address may change
  clearTimeout(waiting);
  waiting = setTimeout(() => { try { history.replaceState(null, "", "#" + fragmentOf(state)); } catch { /* a sandboxed frame has no history */ } }, 150);
}
function change(next) { state = next; show(); remember(); }

for (const [key, model] of Object.entries(data.models)) option($("model"), key, model.name);
for (const group of ["128", "64", "32", "channel"]) option($("group"), group, group);
for (const kv of Plan.KV) option($("kv"), kv, kv);
data.cards.forEach((card) => option($("cards"), card.name, size(card.bytes)));
$("choices").addEventListener("submit", (event) => event.preventDefault());
$("choices").addEventListener("input", (event) => {
  if (event.target.id === "slider") {
    change(valid({ ...state, context: fromSlider(Number($("slider").value), modelOf(state).config.max_position_embeddings) }));
  } else if (event.target.id !== "card" || cardOf($("card").value)) change(read());
});
$("choices").addEventListener("focusout", (event) => { if (event.target.id === "card") $("card").value = state.card; });
document.addEventListener("click", (event) => {
  const given = event.target.dataset || {};
  if (given.context) change(valid({ ...state, context: Number(given.context) }));
  if (given.pick) change(valid({ ...state, ...JSON.parse(given.pick) }));
  if (given.sort) { const [by, way] = sort[given.table]; sort[given.table] = [given.sort, by === given.sort ? -way : 1]; show(); document.querySelector(`[data-table=${given.table}][data-sort=${given.sort}]`).focus(); }
});
window.addEventListener("hashchange", () => { const next = stateOf(location.hash.slice(1)); if (fragmentOf(next) !== fragmentOf(state)) { state = next; show(); } });
state = stateOf(location.hash.slice(1));
show();
