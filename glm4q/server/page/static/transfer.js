// Conversations as a file, and back. What is read is checked: a file may come from anywhere.
import { element } from "./calculator/elements.js";
import { ROOT } from "./conversation.js";

const FORMAT = "glm4q.conversations/1";
const ROLES = ["user", "assistant", "tool"];
const LARGEST = 64 * 2 ** 20;

export const exported = (conversations) => JSON.stringify({ format: FORMAT, conversations }, null, 2);

export function download(text, name) {
  const link = element("a"), url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.href = url;
  link.download = `${name.replace(/[^\p{L}\p{N}._-]+/gu, "-").slice(0, 60) || "conversations"}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

// Throws an Error that says what is wrong with the file.
export async function readFile(file) {
  if (file.size > LARGEST) throw new Error("The file is larger than 64 MiB.");
  let content;
  try {
    content = JSON.parse(await file.text());
  } catch {
    throw new Error("The file is not JSON.");
  }
  if (content?.format !== FORMAT || !Array.isArray(content.conversations)) {
    throw new Error(`The file does not say "format": "${FORMAT}".`);
  }
  return content.conversations.map(checked);
}

// Take over only what a conversation has, each with its type.
function checked(given, at) {
  const wrong = (what) => new Error(`Conversation ${at + 1} ${what}.`);
  if (typeof given?.messages !== "object" || given.messages === null) throw wrong("has no messages");
  const messages = {}, chosen = {};
  for (const message of Object.values(given.messages)) {
    if (!ROLES.includes(message?.role) || typeof message.content !== "string") throw wrong("has a message without role or content");
    const id = word(message.id), parent = word(message.parent);
    messages[id] = { ...textOf(message), id, parent, role: message.role, created: Number(message.created) || 0 };
  }
  for (const [parent, child] of Object.entries(given.chosen ?? {})) {
    if ((parent === ROOT || messages[parent]) && messages[child]?.parent === parent) chosen[parent] = child;
  }
  return {
    id: word(given.id), title: String(given.title ?? "").slice(0, 200), messages, chosen,
    created: Number(given.created) || Date.now(), updated: Number(given.updated) || Date.now(),
    settings: settingsOf(given.settings),
  };

  function word(text) {
    if (typeof text !== "string" || !/^[\w-]{1,64}$/.test(text) || text === "__proto__") throw wrong("has a message without a valid id");
    return text;
  }
}

function textOf({ content, thinking, thinkingSeconds, calls, callId, name, isRefused, finish, error, stats }) {
  const list = (Array.isArray(calls) ? calls : []).map((call) => (
    { id: String(call?.id), name: String(call?.name), arguments: String(call?.arguments) }));
  const numbers = Object.fromEntries(Object.entries(stats ?? {}).filter(([, value]) => typeof value === "number"));
  return {
    content, thinking: String(thinking ?? ""), thinkingSeconds: Number(thinkingSeconds) || 0, calls: list, state: "done",
    ...(typeof callId === "string" ? { callId, name: String(name), isRefused: Boolean(isRefused) } : {}),
    ...(finish ? { finish: String(finish) } : {}), ...(error ? { error: String(error) } : {}),
    ...(Object.keys(numbers).length ? { stats: numbers } : {}),
  };
}

function settingsOf(given) {
  const settings = { system: String(given?.system ?? ""), tools: String(given?.tools ?? "") };
  for (const [name, value] of Object.entries(given ?? {})) if (Number.isFinite(value)) settings[name] = value;
  if (Array.isArray(given?.stop)) settings.stop = given.stop.filter((text) => typeof text === "string" && text);
  return settings;
}
