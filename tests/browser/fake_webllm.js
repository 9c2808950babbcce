/** Stands in for webllm.js where a test needs a page and no model. Its answers come from `window.fake`. */

const fake = { adapter: { name: "Fake GPU", software: false }, pieces: ["Hello", ", world"], error: null, ...window.fake };

export async function listModels() {
  return { tiny: { url: "models/tiny.gguf", bytes: 98_000_000 } };
}

export async function load(model, { onProgress }) {
  onProgress({ phase: "weights", loaded: 49_000_000, total: 98_000_000, tensors: 10, seconds: 2 });
  let stopped = false;
  window.requests = [];
  async function* create({ messages }) {
    window.requests.push(messages);
    if (fake.error) throw Object.assign(new Error(fake.error.message), { name: fake.error.name });
    stopped = false;
    for (const content of fake.pieces) {
      if (stopped) break;
      yield { choices: [{ delta: { content } }], usage: null };
      await new Promise((resolve) => setTimeout(resolve, fake.delay ?? 0));
    }
    const extra = { decode_tokens_per_s: 12.34, time_to_first_token_s: 0.5 };
    yield { choices: [{ delta: { content: null } }], usage: { completion_tokens: fake.pieces.length, extra } };
  }
  return { info: { adapter: fake.adapter }, chat: { completions: { create } }, interrupt: () => (stopped = true) };
}
