/**
 * Stands in for webllm.js where a test needs a page and no model. Its answers come from `window.fake`:
 * {adapter, context, pieces, delay, error: {name, message}, errorAfter: pieces, loadErrors: [one a load or reload, null:
 * none], loading: true, to load until it is cancelled and to reload until it is closed, events: of progress, besides the
 * one of every load, stored: [{name, bytes, stored_bytes, complete}], what the cache lists, of which `busy` is being
 * fetched}. `window.requests` are what `create` was called with. `waits: true` is for answers that do not begin until they
 * are given up. For the kernel playground {playground: {kernels, files}, asItWas, edited: outcomes}.
 */

const fake = {
  adapter: { name: "Fake GPU", software: false },
  context: 4096,
  pieces: ["Hello", ", world"],
  error: null,
  errorAfter: 0,
  loadErrors: [],
  stored: [],
  events: [],
  ...window.fake,
};
window.fake = fake;
window.requests = [];
window.loads = [];
window.reloads = 0;
window.closes = 0;

const failure = ({ name, message }) => Object.assign(new Error(message), { name });
const ended = (signal) => new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));

export const cache = {
  list: async () => fake.stored,
  space: async () => ({ used: 138_000_000, free: 4_000_000_000 }),
  verify: async (name, onProgress) => {
    onProgress({ phase: "verify", loaded: 98_000_000, total: 98_000_000 });
    return fake.stored.find((model) => model.name === name).complete;
  },
  delete: async (name) => {
    if (name === fake.busy) throw failure({ name: "RequestError", message: `${name} is being fetched by a page` });
    fake.stored = fake.stored.filter((model) => model.name !== name);
    return true;
  },
  export: async (name) => new File(["GGUF"], `${name}.gguf`),
  import: async (file, name = file.name.replace(".gguf", "")) => {
    fake.stored.unshift({ name, bytes: file.size, stored_bytes: file.size, complete: true });
    return fake.stored[0];
  },
};

export class Playground {
  async list() {
    return fake.playground;
  }

  async run({ edits }) {
    return { adapter: fake.adapter.name, ...(Object.keys(edits).length ? fake.edited : fake.asItWas) };
  }
}

export async function listModels() {
  return { tiny: { url: "models/tiny.gguf", bytes: 98_000_000 } };
}

export async function keepOffline() {}

export async function load(model, { onProgress, signal }) {
  window.loads.push(model.name ?? model);
  onProgress({ phase: "weights", loaded: 49_000_000, total: 98_000_000, tensors: 10, seconds: 2 });
  for (const event of fake.events) onProgress({ tensors: 0, seconds: 2, ...event });
  if (fake.loading) await ended(signal);
  failIfTold();
  return new FakeModel();
}

function failIfTold() {
  const error = fake.loadErrors.shift();
  if (error) throw failure(error);
}

class FakeModel {
  #stopped = false;
  #closed = new AbortController();
  info = { adapter: fake.adapter, context: fake.context };
  chat = { completions: { create: (request, options) => this.#create(request, options) } };

  interrupt() {
    this.#stopped = true;
  }

  async stats() {
    return { prefill_tokens_per_s: 123.4, decode_tokens_per_s: 12.34 };
  }

  async close() {
    window.closes++;
    this.#closed.abort(failure({ name: "Closed", message: "the model was closed" }));
  }

  async reload({ onProgress }) {
    window.reloads++;
    onProgress({ phase: "weights", loaded: 98_000_000, total: 98_000_000, tensors: 10, seconds: 4 });
    if (fake.loading) await ended(this.#closed.signal);
    failIfTold();
    fake.error = null;
  }

  async *#create(request, { signal } = {}) {
    window.requests.push(request);
    this.#stopped = false;
    let count = 0;
    if (fake.waits) await ended(signal);
    for (const content of fake.pieces) {
      if (fake.error && count === fake.errorAfter) throw failure(fake.error);
      if (this.#stopped) break;
      signal?.throwIfAborted();
      yield { choices: [{ delta: { content } }], usage: null };
      count++;
      await new Promise((resolve) => setTimeout(resolve, fake.delay ?? 0));
    }
    const extra = { decode_tokens_per_s: 12.34, time_to_first_token_s: 0.5 };
    const usage = { completion_tokens: fake.pieces.length, total_tokens: 310 + fake.pieces.length, extra };
    yield { choices: [{ delta: { content: null }, finish_reason: fake.finish ?? "stop" }], usage };
  }
}
