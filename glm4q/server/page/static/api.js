// Requests to the server, with the key that a person typed, and the events of a stream.
import { keyFor, forgetKey } from "./key.js";

export class ApiFailure extends Error {
  constructor(message, status, retryAfter) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

// Ask once; where a key is missing or wrong, ask for it and try again.
async function send(path, options) {
  for (;;) {
    const key = sessionStorage.getItem("glm4q-key");
    const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
    let answer;
    try {
      answer = await fetch(path, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiFailure("The server cannot be reached. Is glm4q serve still running?", 0);
    }
    if (answer.status !== 401) return answer;
    forgetKey();
    if (!await keyFor(key ? "That key is wrong." : "")) throw new ApiFailure("This server needs its API key.", 401);
  }
}

async function checked(answer) {
  if (answer.ok) return answer;
  let message = `The server answers with status ${answer.status}.`;
  try {
    message = (await answer.json()).error.message || message;
  } catch { /* not one of the server's own answers */ }
  throw new ApiFailure(message, answer.status, Number(answer.headers.get("Retry-After")) || 0);
}

export async function getJson(path) {
  return (await checked(await send(path, {}))).json();
}

// Yield the chunks of a chat's stream; null stands for a comment, by which the server says that it
// is still at work.
export async function* streamChat(body, signal) {
  const answer = await checked(await send("/v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  }));
  let isDone = false;
  for await (const line of linesOf(answer.body)) {
    if (line.startsWith(":")) yield null;
    if (!line.startsWith("data:")) continue;
    const data = line.slice(5).trim();
    isDone ||= data === "[DONE]";
    if (isDone) continue;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiFailure(chunk.error.message, 500);
    yield chunk;
  }
  if (!isDone) throw new ApiFailure("The answer was cut off: the connection ended.", 0);
}

async function* linesOf(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let left = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const lines = (left + value).split(/\r?\n/);
      left = lines.pop();
      yield* lines;
    }
    if (left) yield left;
  } finally {
    await reader.cancel().catch(() => {}); // a stream that failed has nothing to cancel
  }
}
