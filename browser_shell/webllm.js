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

import * as cache from "./cache.js";
import { runCells } from "./cells.js";
import { ChatElement } from "./chat_element.js";
import { failure, WorkerClient } from "./client.js";
import { installLanguageModel, LanguageModel, useModel } from "./language_model.js";
import { listModels } from "./locate.js";
import { load } from "./model.js";

export { cache, ChatElement, installLanguageModel, LanguageModel, listModels, load, useModel };

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

/**
 * Every kernel of this machine's GPU, to be edited and tried against its reference. One worker for all calls.
 *
 *     const playground = new Playground();
 *     const { kernels, files } = await playground.list(console.log);
 *     await playground.run({ entry: kernels[0], edits: { [kernels[0].kernel]: "..." } });
 */
export class Playground {
  #worker = new WorkerClient();

  /**
   * @param {(what: string) => void} [onNote]
   * @returns {Promise<{kernels: Entry[], files: Record<string, string>}>}  files: name, without folder and ending -> WGSL
   *
   * @typedef {{kernel: string, variants: string[], files: string[], case: string, feature: string | null}} Entry
   */
  list(onNote) {
    return this.#worker.call("kernels", {}, onNote);
  }

  /**
   * Run a kernel with texts in place of some of its files, and measure it.
   *
   * @param {{entry: Entry, edits: Record<string, string>}} request
   * @returns {Promise<{adapter: string, nmse: number | null, most: number, gb_per_s: number | null,
   *   error: string | null, file: string | null, line: number | null}>}  most: the nmse that it may have; error: why it
   *   did not run, file and line where the compiler stopped
   */
  run(request) {
    return this.#worker.call("try_kernel", request);
  }

  /** End what runs, whose error is named AbortError, and the worker. */
  close() {
    this.#worker.terminate(failure("AbortError", "it was ended"));
  }
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
  cache,
  ChatElement,
  doctor,
  installLanguageModel,
  keepOffline,
  LanguageModel,
  listModels,
  load,
  Playground,
  useModel,
};
customElements.define("web-llm-chat", ChatElement);
runCells(); // a module runs when the page is parsed
