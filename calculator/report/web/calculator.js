// The calculator of a page: binds the pickers to the question, and the question to what is shown.
import { showAnswer, showRefusal } from "./answer.js";
import { showChart } from "./chart.js";
import { $ } from "./elements.js";
import { isHalfTyped, listChoices, readQuestion, readSlider, showQuestion } from "./pickers.js";
import { plan } from "./plan.js";
import { cardsOf, commandOf, facts, fragmentOf, modelOf, questionOf, valid } from "./question.js";
import { showOffers, showVariants, sortBy } from "./tables.js";

let asked = null;

function show() {
  const cards = cardsOf(asked), made = plan(modelOf(asked), asked, cards);
  showQuestion(asked);
  if (made.refusal) {
    showRefusal(made.refusal);
  } else {
    showAnswer(asked, made, cards);
    showChart(asked, cards);
    showOffers(asked, made);
    showVariants(asked, cards);
  }
  $("title").textContent = modelOf(asked).name + ": does it fit?";
  $("quality").textContent = modelOf(asked).quality ||
    "Bits: of the weights + of each number of the cache. No loss was measured on this model yet.";
  $("command").textContent = commandOf(asked);
}

// facts: what calculator/report/page.py writes. address: reads and keeps the question's fragment.
export function startCalculator(given, address) {
  let waiting = 0;
  const change = (next) => {
    asked = next;
    show();
    $("link").href = address.link(fragmentOf(asked));
    clearTimeout(waiting); // browsers limit how often the address may change
    waiting = setTimeout(() => address.keep(fragmentOf(asked)), 150);
  };
  Object.assign(facts, given);
  listChoices();
  asked = questionOf(address.read() ?? "");
  show();
  $("link").href = address.link(fragmentOf(asked));
  listen(change);
  window.addEventListener("hashchange", () => {
    const next = address.read();
    if (next !== null && fragmentOf(questionOf(next)) !== fragmentOf(asked)) change(questionOf(next));
  });
}

function listen(change) {
  const choices = $("choices");
  choices.addEventListener("submit", (event) => event.preventDefault());
  choices.addEventListener("input", (event) => {
    if (event.target.id === "slider") change(readSlider(asked));
    else if (!isHalfTyped(event.target)) change(readQuestion(asked));
  });
  choices.addEventListener("focusout", (event) => {
    if (event.target.id in { card: 1, others: 1 }) event.target.value = asked[event.target.id];
  });
  $("calculator").addEventListener("click", (event) => {
    const { context, pick, sort, table } = event.target.dataset || {};
    if (context) change(valid({ ...asked, context: Number(context) }));
    if (pick) change(valid({ ...asked, ...JSON.parse(pick) }));
    if (sort) {
      sortBy(table, sort);
      show();
      document.querySelector(`[data-table=${table}][data-sort=${sort}]`).focus();
    }
  });
}
