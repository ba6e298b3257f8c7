// Tools that the model may call. None runs here or on the server: the page shows a call, and a
// person gives its result or refuses it.
export const EXAMPLE = JSON.stringify([{
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather of a city today.",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
}], null, 2);

const NAME = /^[A-Za-z_][\w.-]{0,63}$/;

// Read the list that a person wrote. Throws an Error that says what is wrong with it.
export function readTools(text) {
  if (!text.trim()) return [];
  let tools;
  try {
    tools = JSON.parse(text);
  } catch (error) {
    throw new Error(`The tools are not valid JSON: ${error.message}`);
  }
  if (!Array.isArray(tools)) throw new Error("The tools must be a list, in [ and ].");
  for (const [at, tool] of tools.entries()) {
    if (tool?.type !== "function") throw new Error(`Tool ${at + 1} must have "type": "function".`);
    if (!NAME.test(tool.function?.name ?? "")) {
      throw new Error(`Tool ${at + 1} needs a function.name of letters, digits, _ - and dots.`);
    }
  }
  return tools;
}

// Arguments as a person reads them; what is not JSON is shown as it is.
export function prettyArguments(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
