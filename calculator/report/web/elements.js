// Elements of a page. Text is always set as text, so nothing that is shown can become markup.
export const $ = (id) => document.getElementById(id);

export function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

export function row(cells) {
  const made = element("tr");
  made.append(...cells);
  return made;
}

export function option(select, value, text) {
  const made = element("option", text);
  made.value = value;
  select.append(made);
}

export function drawn(tag, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// One colour for each term of a plan; neighbours differ also for people who see few colours.
export const COLOURS = [
  "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a63d2",
  "#7a8288", "#b8860b", "#4c9a8f", "#c04f6b", "#5f7f2f", "#9a9a9a", "#6b4c9a",
];

export function cell(text, className) {
  return element("td", text, className);
}
