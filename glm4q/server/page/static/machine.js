// Shows what this run holds now beside its plan, and the calculator, which begins with this run.
import { getJson } from "./api.js";
import { startCalculator } from "./calculator/calculator.js";
import { $, cell, COLOURS, element, row } from "./calculator/elements.js";
import { number, size } from "./calculator/units.js";

const EVERY = 3000; // milliseconds between two looks at what is held
let isStarted = false, looking = 0;

// Begin to look while the view is shown; the calculator's data come once.
export async function showMachine() {
  clearInterval(looking);
  looking = setInterval(look, EVERY);
  await look();
  if (isStarted) return;
  isStarted = true;
  startCalculator(await getJson("/v1/page/calculator"), {
    read: () => location.hash.startsWith("#memory") ? location.hash.slice("#memory&".length) : null,
    link: (fragment) => "#memory&" + fragment,
    keep: (fragment) => {
      if (location.hash.startsWith("#memory")) history.replaceState(null, "", "#memory&" + fragment);
    },
  });
}

export const leaveMachine = () => clearInterval(looking);

async function look() {
  try {
    show(await getJson("/v1/page/machine"));
  } catch (error) {
    $("machine-words").textContent = error.message;
  }
}

function show(machine) {
  const where = machine.device === "gpu" ? machine.card ?? "the GPU" : "this machine's processor";
  const { planned, held } = machine, sum = Object.values(held).reduce((a, b) => a + b, 0);
  $("machine-words").textContent = `${machine.model} runs on ${where}, with a context of ${number(machine.context)} tokens. ` +
    `Its plan is ${size(machine.planned_bytes)}; ` +
    (machine.loaded ? `its tensors hold ${size(sum)} now.` : "its memory is given back until someone asks.");
  $("machine-process").textContent = machine.device === "gpu"
    ? `torch has taken ${size(machine.process_bytes)} of the card; the CUDA context comes on top.`
    : `The process has ${size(machine.process_bytes)} of memory, its libraries and mapped files included. ` +
      "The calculator below asks what the same run would take on a graphics card.";
  showBars(planned, held);
  showRows(machine);
}

function showBars(planned, held) {
  const names = [...new Set([...Object.keys(planned), ...Object.keys(held)])];
  const most = Math.max(...names.map((name) => Math.max(planned[name] ?? 0, held[name] ?? 0)));
  $("held").tBodies[0].replaceChildren(...names.map((name, at) => {
    const bars = cell("", "bars");
    if (name in planned) bars.append(bar(planned[name], most, COLOURS[at], "planned"));
    if (name in held) bars.append(bar(held[name], most, COLOURS[at], "now"));
    const line = row([
      cell(name, "name"), bars, cell(planned[name] === undefined ? "" : size(planned[name]), "number"),
      cell(held[name] === undefined ? "not counted" : size(held[name]), "number"),
    ]);
    Object.assign(line.dataset, { part: name, planned: planned[name] ?? "", held: held[name] ?? "" });
    return line;
  }));
}

function bar(bytes, most, colour, kind) {
  const span = element("span", undefined, kind);
  span.style.width = `${100 * bytes / most}%`;
  span.style.background = colour;
  return span;
}

function showRows({ rows, context }) {
  $("rows").replaceChildren(...rows.map((tokens, at) => {
    const line = element("li"), meter = element("meter");
    meter.max = context;
    meter.value = tokens;
    meter.setAttribute("aria-label", `row ${at + 1} of the KV cache`);
    line.append(`Row ${at + 1}`, meter, `${number(tokens)} of ${number(context)} tokens`);
    return line;
  }));
}
