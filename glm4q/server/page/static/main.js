// The page begins here: it loads what is kept, asks the server what it serves, and binds the parts.
import { notice } from "./announce.js";
import { getJson } from "./api.js";
import { startAppearance } from "./appearance.js";
import { $ } from "./calculator/elements.js";
import { Chat, focusComposer } from "./chat.js";
import { showComposer, showContext, startComposer } from "./composer.js";
import { newId } from "./conversation.js";
import { leaveMachine, showMachine } from "./machine.js";
import { openSettings, startSettings } from "./settings.js";
import { Sidebar } from "./sidebar.js";
import { allConversations, isKept, save } from "./store.js";
import { suggestion } from "./thread.js";
import { download, exported, readFile } from "./transfer.js";

const SUGGESTIONS = [
  "Explain what a KV cache is, in five sentences.",
  "Write a Python function that merges overlapping intervals, with a test.",
  "Compare INT8 and INT4 weights in a table.",
];

const conversations = new Map();
let machine = null, sidebar = null;

const chat = new Chat(() => machine.model, changed);

function changed() {
  if (!sidebar) return; // the parts are not bound yet
  if (Object.keys(chat.conversation.messages).length) conversations.set(chat.conversation.id, chat.conversation);
  sidebar.show(chat.conversation);
  showComposer(chat);
  showContext(chat.tokens, machine?.context ?? 0);
  document.title = chat.conversation.title ? `${chat.conversation.title} · glm4q` : "glm4q";
}

async function connect() {
  try {
    machine = await getJson("/v1/page/machine");
  } catch (error) {
    $("model-name").textContent = "no connection";
    notice(error.message);
    return;
  }
  $("model-name").textContent = machine.model;
  $("welcome-model").textContent = machine.chats
    ? `${machine.model}, with a context of ${machine.context.toLocaleString("en-US")} tokens`
    : `${machine.model} has no chat template: programs can ask /v1/completions, and the memory view works`;
  $("prompt").disabled = !machine.chats;
}

// The part of the address behind # names the view; the calculator's question may follow.
function route() {
  const isMemory = location.hash.startsWith("#memory");
  $("chat-view").hidden = isMemory;
  $("memory-view").hidden = !isMemory;
  for (const [id, isHere] of [["to-chat", !isMemory], ["to-memory", isMemory]]) {
    if (isHere) $(id).setAttribute("aria-current", "page");
    else $(id).removeAttribute("aria-current");
  }
  if (isMemory) showMachine().catch((error) => notice(error.message));
  else leaveMachine();
}

function newChat() {
  const { tools, system, ...sampling } = chat.conversation.settings;
  chat.start(sampling); // how answers are sampled stays; what the chat was about does not
  location.hash = "";
  if (document.body.classList.contains("with-sidebar")) sidebar.toggle(false);
  focusComposer();
}

async function importFile(input) {
  const [file] = input.files;
  input.value = "";
  if (!file) return;
  try {
    const read = await readFile(file);
    for (const conversation of read) {
      if (conversations.has(conversation.id)) conversation.id = newId(); // what is here stays
      chat.deleted.delete(conversation.id);
      conversations.set(conversation.id, conversation);
      await save(conversation);
    }
    if (read.length) chat.open(read[0]);
    notice(`${read.length} ${read.length === 1 ? "conversation is" : "conversations are"} imported.`);
  } catch (error) {
    notice(error.message);
  }
}

function bind() {
  sidebar = new Sidebar(conversations, (conversation) => { location.hash = ""; chat.open(conversation); }, (conversation) => {
    chat.forget(conversation);
    changed();
  });
  startAppearance();
  startComposer(chat, () => {
    if (!machine) connect();
    return Boolean(machine?.chats);
  });
  startSettings((settings) => {
    chat.conversation.settings = settings;
    chat.keep(chat.conversation);
  });
  $("open-settings").addEventListener("click", () => openSettings(chat.conversation.settings, machine?.settings ?? {}));
  $("new-chat").addEventListener("click", newChat);
  $("export-all").addEventListener("click", () => download(exported([...conversations.values()]), "glm4q-conversations"));
  $("import").addEventListener("click", () => $("import-file").click());
  $("import-file").addEventListener("change", (event) => importFile(event.target));
  $("suggestions").replaceChildren(...SUGGESTIONS.map((text) => suggestion(text, (asked) => machine?.chats && chat.ask(asked))));
  document.addEventListener("keydown", (event) => {
    if (event.key.toLowerCase() === "o" && event.shiftKey && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      newChat();
    }
  });
  window.addEventListener("hashchange", route);
}

async function start() {
  bind();
  for (const conversation of await allConversations()) conversations.set(conversation.id, conversation);
  if (!await isKept()) notice("This browser keeps no data for pages: conversations end with this page. Export what you need.");
  const [latest] = conversations.values();
  if (latest) chat.open(latest);
  changed();
  route();
  await connect();
  changed();
  if (!location.hash && matchMedia("(hover: hover)").matches) focusComposer();
}

start();
