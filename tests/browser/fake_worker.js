/** Stands in for worker.js where a test needs a page over the real webllm.js and no model: the same short answer each time. */

const LOADED = {
  model: "fake",
  adapter: { name: "Your GPU", backend: "WebGPU", software: false },
  context: 4096,
  load_s: 1,
  versions: {},
  startup: {},
};
const SPEEDS = { prefill_tokens_per_s: 1000, decode_tokens_per_s: 100 };
const USAGE = { prompt_tokens: 9, completion_tokens: 3, total_tokens: 12, prompt_tokens_details: {}, extra: SPEEDS };
const PIECES = ["Hello! ", "How can I ", "help you today?"];
const VALUES = { load: LOADED, stats: SPEEDS };

const chunk = (content, finish_reason = null, usage = null) => ({
  ...{ id: "chatcmpl-1", object: "chat.completion.chunk", created: 0, model: "fake", usage },
  choices: [{ index: 0, delta: { role: null, content }, finish_reason, token_ids: null }],
});

self.onmessage = ({ data: { id, method } }) => {
  if (method === "chat") {
    for (const piece of PIECES) postMessage({ id, event: chunk(piece) });
    postMessage({ id, event: chunk(null, "stop", USAGE) });
  }
  postMessage({ id, value: VALUES[method] ?? null });
};
