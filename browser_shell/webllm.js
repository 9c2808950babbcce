/**
 * webllm for web pages: `await window.webllm.load(model)`, the element `<web-llm-chat>`, cells of Python, and Chrome's
 * Prompt API.
 *
 * @typedef {import("./model.js").ChatCompletion} ChatCompletion
 * @typedef {import("./model.js").ChatCompletionChunk} ChatCompletionChunk
 * @typedef {import("./model.js").ChatOptions} ChatOptions
 * @typedef {import("./model.js").Info} Info
 * @typedef {import("./model.js").LoadOptions} LoadOptions
 * @typedef {import("./model.js").Message} Message
 * @typedef {import("./model.js").Model} Model
 * @typedef {import("./model.js").Progress} Progress
 * @typedef {import("./model.js").Usage} Usage
 */

import { runCells } from "./cells.js";
import { ChatElement } from "./chat_element.js";
import { WorkerClient } from "./client.js";
import { installLanguageModel, LanguageModel, useModel } from "./language_model.js";
import { listModels } from "./locate.js";
import { load } from "./model.js";

export { ChatElement, installLanguageModel, LanguageModel, listModels, load, useModel };

/**
 * Measure a model's shape with random weights on this machine's GPU, as `webllm bench --config` does.
 *
 * @param {{config: object, quant?: string, prompt_tokens?: number[], decode_tokens?: number, at_context?: number[],
 *   repeats?: number}} request  config: the contents of a config.json
 * @param {(what: string) => void} [onNote]  told what is being measured
 * @returns {Promise<Record<string, any>>}
 */
export function bench(request, onNote) {
  return callOnce("bench", request, onNote);
}

/**
 * Test every kernel on this machine's GPU, as `webllm doctor` does.
 *
 * @param {{only?: string[]}} [request]  only: parts of the names of the tests to run
 * @param {(what: string) => void} [onNote]  told what is being tested
 * @returns {Promise<{adapter: {name: string}, features: string[], browser: string, kernels: {kernel: string,
 *   variants: string[], nmse: number | null, error: string | null, ok: boolean}[]}>}
 */
export async function doctor(request = {}, onNote) {
  return { ...(await callOnce("doctor", request, onNote)), browser: navigator.userAgent };
}

/** One call to a worker of its own, which needs no model. */
async function callOnce(method, request, onNote) {
  const worker = new WorkerClient();
  try {
    return await worker.call(method, request, onNote);
  } finally {
    worker.terminate();
  }
}

/**
 * Keep this folder's page, Python and wheels, but no model, for when there is no network: sw.js caches them. For pages in
 * this folder.
 *
 * @returns {Promise<ServiceWorkerRegistration | null>}  null where there are no service workers
 */
export async function keepOffline() {
  const url = new URL("sw.js", import.meta.url);
  return (await navigator.serviceWorker?.register(url, { updateViaCache: "none" })) ?? null;
}

window.webllm = {
  bench,
  ChatElement,
  doctor,
  installLanguageModel,
  keepOffline,
  LanguageModel,
  listModels,
  load,
  useModel,
};
customElements.define("web-llm-chat", ChatElement);
runCells(); // a module runs when the page is parsed
