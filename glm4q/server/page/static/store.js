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
  await act("readwrite", (store) => store.put(structuredClone(conversation)));
}

export async function remove(id) {
  kept.delete(id);
  await act("readwrite", (store) => store.delete(id));
}
