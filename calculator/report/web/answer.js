// The answer to a question: what is required, the verdict, the terms, and what each card holds.
import { $, cell, COLOURS, element, row } from "./elements.js";
import { modelOf } from "./question.js";
import { maxContext } from "./plan.js";
import { decode } from "./speed.js";
import { bandWords, number, size, verdict } from "./units.js";

const WORDS = { fits: "It fits, ", tight: "Tight, ", no: "It does not fit, " };

export function showRefusal(refusal) {
  $("verdict").className = "no";
  $("verdict").dataset.verdict = "refused";
  $("verdict").textContent = "This cannot be: " + refusal;
  $("need").textContent = "-";
}

export function showAnswer(ask, made, cards) {
  const [card] = cards, margin = card.bytes - made.gpu, word = verdict(margin), box = $("verdict");
  const need = sumOf(made, "gpu"), names = ask.others ? cards.map((each) => each.name).join(" + ") : card.name;
  const many = ask.gpus > 1 && !ask.others ? ask.gpus + " x " : "";
  $("need").textContent = size(need);
  $("need").dataset.bytes = need;
  $("of").textContent = requiredOf(ask);
  box.className = word;
  box.dataset.margin = margin;
  box.dataset.verdict = word;
  box.textContent = WORDS[word] + size(Math.abs(margin)) + (margin < 0 ? " too much" : " left") +
    (ask.others ? ` on the fullest of ${names}` : " of " + size(card.bytes) + " on " + many + names);
  const full = decode(made, card, ask.context), most = maxContext(modelOf(ask), ask, cards);
  const users = ask.users > 1 ? " for each user" : "";
  $("speed").textContent =
    (full ? `Decode: ${bandWords(full)} tokens a second${users} with a full context. ` : "") +
    (most ? `The longest context of this variant is ${number(most)} tokens.` : "No context of this variant fits.");
  Object.assign($("speed").dataset, { low: full ? full[0] : "", high: full ? full[1] : "", most });
  $("notes").replaceChildren(...card.notes.map((note) => element("p", note)));
  showBar(made, card);
  showTerms(made);
  showShares(made.shares || []);
}

function requiredOf(ask) {
  if (ask.gpus === 1) return "Required VRAM";
  return ask.split === "layers"
    ? `Required VRAM of the fullest of ${ask.gpus} cards`
    : `Required VRAM of each of ${ask.gpus} cards`;
}

const colourOf = (device, place) => device === "gpu" ? COLOURS[place % COLOURS.length] : "transparent";

function showBar(made, card) {
  const whole = Math.max(made.gpu, card.bytes), limit = element("div");
  const parts = made.terms.map(([name, device, bytes], place) => {
    const part = element("span");
    part.style.background = colourOf(device, place);
    part.style.width = device === "gpu" ? 100 * bytes / whole + "%" : "0";
    part.title = name + " " + size(bytes);
    return part;
  });
  limit.id = "limit";
  limit.style.left = "calc(" + 100 * card.bytes / whole + "% - 3px)";
  $("bar").replaceChildren(...parts, limit);
  $("bar").setAttribute("aria-label", `${size(made.gpu)} of ${size(card.bytes)}`);
}

function showTerms(made) {
  const where = { gpu: "GPU", host: "host" };
  $("terms").tBodies[0].replaceChildren(...made.terms.map(([name, device, bytes], place) => {
    const key = element("span", "", "key"), first = cell("", "name");
    key.style.background = colourOf(device, place);
    first.append(key, name);
    const line = row([first, cell(where[device]), cell(number(bytes), "number"), cell(size(bytes), "number")]);
    Object.assign(line.dataset, { term: name, device, bytes });
    return line;
  }));
  $("terms").tFoot.replaceChildren(...["gpu", "host"].map((device) => {
    const total = device === "gpu" ? sumOf(made, "gpu") : made.host, count = cell(number(total), "number");
    count.id = "total-" + device;
    count.dataset.bytes = total;
    return row([cell("total " + where[device]), cell(""), count, cell(size(total), "number")]);
  }));
}
const sumOf = (made, device) => made.terms.reduce((sum, [, on, bytes]) => on === device ? sum + bytes : sum, 0);

function showShares(shares) {
  $("shares-part").hidden = !shares.length;
  $("shares").tBodies[0].replaceChildren(...shares.map((share, at) => {
    const word = verdict(share.margin), last = share.first + share.layers - 1;
    const line = row([
      cell(`${at + 1}. ${share.card.name}`, "name"), cell(`${share.first} to ${last}`), cell(String(share.layers), "number"),
      cell(size(share.made.gpu), "number"), cell(size(share.margin), "number"), cell(word, word),
    ]);
    Object.assign(line.dataset, { layers: share.layers, bytes: share.made.gpu });
    return line;
  }));
}
