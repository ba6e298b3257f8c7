// Conversations in the browser's own database. Where there is none (a private window may refuse
// it), they live as long as the page.
const NAME = "glm4q", STORE = "conversations";
const kept = new Map();
let opened = null;

function open() {
  opened ||= new Promise((resolve) => {
    let request;
    try {
      request = indexedDB.open(NAME, 1);
    } catch {
      resolve(null);
      return;
    }
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => resolve(null);
    request.onblocked = () => resolve(null);
  });
  return opened;
}

async function act(mode, work) {
  const database = await open();
  if (!database) return null;
  return new Promise((resolve, reject) => {
    const transaction = database.transaction(STORE, mode), request = work(transaction.objectStore(STORE));
    transaction.oncomplete = () => resolve(request.result);
    transaction.onerror = transaction.onabort = () => reject(transaction.error);
  });
}

export const isKept = async () => Boolean(await open());

// The latest first.
export async function allConversations() {
  const stored = await act("readonly", (store) => store.getAll()) ?? [...kept.values()];
  return stored.sort((a, b) => b.updated - a.updated);
}

export async function save(conversation) {
  kept.set(conversation.id, conversation);
  await act("readwrite", (store) => {
    const read = store.get(conversation.id);
    read.onsuccess = () => store.put(together(read.result, conversation));
    return read;
  });
}

// Another tab may have kept messages of its own in this conversation: they stay beside ours. A
// message never gets shorter, so the longer one is the newer.
function together(stored, conversation) {
  const messages = { ...stored?.messages };
  for (const [id, message] of Object.entries(conversation.messages)) {
    if (!(messages[id]?.content.length > message.content.length)) messages[id] = message;
  }
  return { ...conversation, messages, chosen: { ...stored?.chosen, ...conversation.chosen } };
}

export async function remove(id) {
  kept.delete(id);
  await act("readwrite", (store) => store.delete(id));
}
