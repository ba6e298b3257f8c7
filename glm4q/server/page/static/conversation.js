// A conversation is a tree of messages. An edit or a retry adds a sibling, so nothing is lost; of
// each message, one child is chosen, and the chosen messages from the root are what is shown.
export const ROOT = "root";
export const REFUSED = "The user refused this call.";

// crypto.randomUUID is for pages of this machine or over TLS only; a phone in the house has neither.
export const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");

export function newConversation(settings = {}) {
  const now = Date.now();
  return {
    id: newId(), title: "", created: now, updated: now, messages: {}, chosen: {},
    settings: { system: "", tools: "", ...settings },
  };
}

export function addMessage(conversation, parent, fields) {
  const message = { id: newId(), parent, created: Date.now(), content: "", ...fields };
  conversation.messages[message.id] = message;
  conversation.chosen[parent] = message.id;
  conversation.updated = message.created;
  if (!conversation.title && message.role === "user") conversation.title = titleOf(message.content);
  return message;
}

export function titleOf(text) {
  const [line] = text.trim().split("\n");
  return line.length > 60 ? line.slice(0, 59).trimEnd() + "…" : line;
}

// The chosen messages, from the first to the last.
export function shown(conversation) {
  const messages = [];
  let at = conversation.chosen[ROOT];
  while (at && conversation.messages[at]) {
    messages.push(conversation.messages[at]);
    at = conversation.chosen[at];
  }
  return messages;
}

export const lastOf = (conversation) => shown(conversation).at(-1)?.id ?? ROOT;

// The messages that stand in the place of this one, the oldest first, this one included.
export function siblings(conversation, message) {
  return Object.values(conversation.messages)
    .filter((other) => other.parent === message.parent)
    .sort((a, b) => a.created - b.created);
}

export function choose(conversation, message) {
  conversation.chosen[message.parent] = message.id;
}

// The calls of the last answer that have no result yet.
export function openCalls(conversation) {
  const messages = shown(conversation), at = messages.findLastIndex((message) => message.role === "assistant");
  if (at < 0) return [];
  const answered = new Set(messages.slice(at + 1).map((message) => message.callId));
  if (messages.slice(at + 1).some((message) => message.role !== "tool")) return [];
  return (messages[at].calls ?? []).filter((call) => !answered.has(call.id));
}

// The messages that the server is sent: the chosen ones up to that one. Thoughts are not sent again,
// nor is an answer that failed before its first word.
export function requestMessages(conversation, upTo) {
  const messages = shown(conversation), end = messages.findIndex((message) => message.id === upTo);
  const sent = messages.slice(0, end + 1).flatMap(requestMessage);
  const system = conversation.settings.system.trim();
  return system ? [{ role: "system", content: system }, ...sent] : sent;
}

function requestMessage(message) {
  if (message.role === "user") return [{ role: "user", content: message.content }];
  if (message.role === "tool") {
    return [{ role: "tool", tool_call_id: message.callId, content: message.content }];
  }
  if (!message.content && !message.calls?.length) return [];
  const calls = message.calls?.map(({ id, name, arguments: given }) => (
    { id, type: "function", function: { name, arguments: given } }));
  return [{ role: "assistant", content: message.content, ...(calls?.length ? { tool_calls: calls } : {}) }];
}
