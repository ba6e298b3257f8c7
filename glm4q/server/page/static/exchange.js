// Gets one answer of the model: sends the request, fills a message from the stream, and notes why it ended.
import { streamChat } from "./api.js";
import { addMessage, requestMessages } from "./conversation.js";
import { readTools } from "./tools.js";

export const NUMBERS = [
  "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "max_tokens", "seed",
];

function bodyOf(conversation, parent, model) {
  const { settings } = conversation, tools = readTools(settings.tools);
  const body = { model, messages: requestMessages(conversation, parent), stream: true, stream_options: { include_usage: true } };
  for (const name of NUMBERS) if (Number.isFinite(settings[name])) body[name] = settings[name];
  if (settings.stop?.length) body.stop = settings.stop;
  if (tools.length) body.tools = tools;
  return body;
}

// Add an answer below `parent` and fill it. changed: called after each piece. A message that ends
// badly keeps what it has, and says why.
export async function answer(conversation, parent, model, signal, changed) {
  const message = addMessage(conversation, parent, { role: "assistant", thinking: "", calls: [], state: "waiting" });
  const begun = performance.now();
  changed(message);
  try {
    const body = bodyOf(conversation, parent, model);
    for await (const chunk of streamChat(body, signal)) {
      if (chunk === null) message.state = message.state === "waiting" ? "reading" : message.state;
      else take(message, chunk, begun);
      changed(message);
    }
  } catch (error) {
    if (signal.aborted) message.finish = "stopped";
    else Object.assign(message, { finish: "error", error: error.message, retryAfter: error.retryAfter || 0 });
  }
  message.state = "done";
  message.finish ||= "stop";
  conversation.updated = Date.now();
  changed(message);
  return message;
}

function take(message, chunk, begun) {
  const now = performance.now(), [choice] = chunk.choices;
  if (chunk.usage) {
    const { prompt_tokens: prompt, completion_tokens: tokens } = chunk.usage, stats = message.stats ?? { first: now };
    const seconds = (now - stats.first) / 1000;
    message.stats = { ...stats, prompt, tokens, speed: tokens > 1 && seconds > 0.05 ? (tokens - 1) / seconds : null };
  }
  if (!choice) return;
  const { content, reasoning_content: thinking, tool_calls: calls } = choice.delta;
  if (content || thinking || calls) message.stats ??= { first: now, wait: (now - begun) / 1000 };
  if (thinking) {
    message.state = "thinking";
    message.thinking += thinking;
    message.thinkingSeconds = (now - message.stats.first) / 1000;
  }
  if (content) {
    message.state = "writing";
    message.content += content;
  }
  for (const call of calls ?? []) takeCall(message, call);
  if (choice.finish_reason) message.finish = choice.finish_reason;
}

// A call may come in pieces: its name once, its arguments as text that grows.
function takeCall(message, { index, id, function: called }) {
  const call = message.calls[index] ??= { id, name: "", arguments: "" };
  message.state = "writing";
  call.name += called.name ?? "";
  call.arguments += called.arguments ?? "";
}
