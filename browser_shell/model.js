/**
 * A model that runs in a worker on this machine's GPU.
 *
 * @typedef {{phase: string, loaded: number, total: number, tensors: number, seconds: number, stored?: number}} Progress
 * @typedef {object} LoadOptions
 * @property {(progress: Progress) => void} [onProgress]  loaded and total in bytes; the phase "download" tells what is in
 *   the browser's store, `stored` bytes of it from before; "memory" in its total what the model will take on the GPU;
 *   "weights" what is there
 * @property {number} [context]  most tokens of a conversation
 * @property {"f16" | "f32" | "int8"} [kv]  numbers of the cache
 * @property {"q4" | "q4_sym" | "q8" | "f16" | "f32"} [quant]  what a file of floats is quantised to while it is loaded
 * @property {boolean} [exact]  no approximate kernels
 * @property {string} [adapter]  part of the GPU's name
 * @property {boolean | object} [tune]  true: measure which shapes of workgroups are fastest; an object: what that found
 *   in another load, `tuning` of `stats()`
 * @property {AbortSignal} [signal]  ends the load and frees what it had; `load` then throws the signal's reason
 * @property {GPUPowerPreference} [powerPreference]  which GPU, where there are several
 * @property {boolean} [shared]  use one model for all pages of this site that load it with the same options, where the
 *   browser can; a picked file is never shared
 * @property {boolean} [keep]  false: the browser stores nothing of the model, and fetches it anew each time
 *
 * @typedef {object} Info
 * @property {string} model  URL or file name
 * @property {{name: string, backend: string, software: boolean}} adapter
 * @property {number} context  most tokens of a conversation
 * @property {number} load_s
 * @property {Record<string, string | null>} versions
 * @property {boolean} shared  whether other pages may use the same model
 * @property {{fetch_s: number, pyodide_s: number, import_s: number, adapter_s: number, python_s: number,
 *   total_s: number}} startup
 *
 * @typedef {{role: "system" | "user" | "assistant", content: string}} Message
 * @typedef {object} ChatOptions
 * @property {Message[]} messages  the whole conversation each time
 * @property {number} [max_tokens]
 * @property {number} [temperature]
 * @property {number} [top_p]
 * @property {number} [top_k]
 * @property {number} [min_p]
 * @property {number} [presence_penalty]
 * @property {number} [frequency_penalty]
 * @property {number} [repetition_penalty]
 * @property {Record<string, number>} [logit_bias]
 * @property {number} [seed]
 * @property {string | string[]} [stop]
 * @property {string} [model]  ignored: one is loaded
 * @property {boolean} [ignore_eos]  tokens that end an answer do not end this one
 * @property {boolean} [return_token_ids]
 *
 * @typedef {"stop" | "length" | "abort"} FinishReason
 * @typedef {{prompt_tokens: number, completion_tokens: number, total_tokens: number,
 *   prompt_tokens_details: {cached_tokens?: number}, extra: {time_to_first_token_s: number, prefill_tokens_per_s: number,
 *   decode_tokens_per_s: number, host_choices: number, seed?: number}}} Usage
 * @typedef {{id: string, object: "chat.completion", created: number, model: string, usage: Usage,
 *   choices: {index: number, message: {role: "assistant", content: string}, finish_reason: FinishReason,
 *   token_ids: number[] | null}[], prompt_token_ids: number[] | null}} ChatCompletion
 * @typedef {{id: string, object: "chat.completion.chunk", created: number, model: string, usage: Usage | null,
 *   choices: {index: number, delta: {role: "assistant" | null, content: string | null},
 *   finish_reason: FinishReason | null, token_ids: number[] | null}[], prompt_token_ids: number[] | null}} ChatCompletionChunk
 */

import * as cache from "./cache.js";
import { WorkerClient } from "./client.js";
import { locate } from "./locate.js";

/** What relative URLs start from, in a worker too. */
const base = () => globalThis.document?.baseURI ?? self.location.href;

/**
 * Load a model.
 *
 *     const llm = await window.webllm.load("smollm2-135m-instruct", { onProgress: console.log });
 *     const ids = await llm.generate([1, 9690], 8);
 *
 * @param {string | File | Partial<import("./stored_source.js").Entry>} model  a name of site.json or of `cache.list()`, the
 *   URL of a .gguf file, a picked file, or what site.json would say of one: all but `url` where known
 * @param {LoadOptions} [options]
 * @returns {Promise<Model>}
 * @throws an Error whose name is one of webllm/errors.py: NoAdapter, ModelNotFound, FetchError, ...; of the GPU's
 *   own, with kernel, line and sizes where they are known
 */
export async function load(model, { onProgress, signal, powerPreference, shared = false, ...rest } = {}) {
  signal?.throwIfAborted();
  if (rest.keep !== false) cache.persist();
  const options = powerPreference ? { ...rest, power_preference: powerPreference } : rest;
  if (shared && canShare(model)) {
    const location = await locate(model, base());
    signal?.throwIfAborted();
    try {
      return await open(new WorkerClient(sharedName(location, options)), location, options, onProgress, signal);
    } catch (error) {
      if (error.name !== "NoAdapter") throw error; // a browser may have WebGPU in a page's own workers only
    }
  }
  const worker = new WorkerClient(); // first, as it starts Python
  return open(worker, locate(model, base()), options, onProgress, signal);
}

function canShare(model) {
  return !(model instanceof File) && Boolean(globalThis.SharedWorker && navigator.locks);
}

/** Pages that ask for the same get the same worker. */
function sharedName(location, options) {
  return `webllm ${JSON.stringify([location, Object.entries(options).sort()])}`;
}

async function open(worker, location, options, onProgress, signal) {
  const abort = () => worker.terminate(signal.reason);
  signal?.addEventListener("abort", abort);
  try {
    const info = await worker.call("load", { model: await location, options }, onProgress);
    return new Model(worker, { ...info, shared: worker.shared });
  } catch (error) {
    worker.terminate();
    throw error;
  } finally {
    signal?.removeEventListener("abort", abort);
  }
}

/** A loaded model, made by `load`. */
export class Model {
  #worker;

  /**
   * @param {WorkerClient} worker  in which it was loaded
   * @param {Info} info
   */
  constructor(worker, info) {
    this.#worker = worker;
    /** What `load` found. */
    this.info = info;
    this.chat = { completions: new Completions(worker, "chat") };
    /**
     * A text goes on.
     * @type {{create: (request: Omit<ChatOptions, "messages"> & {prompt: string, echo?: boolean, stream?: boolean},
     *   options?: {signal?: AbortSignal}) => any}}
     */
    this.completions = /** @type {any} */ (new Completions(worker, "complete"));
  }

  /**
   * Greedy continuation of token ids; a stop id ends it and is included.
   * @param {Iterable<number>} ids
   * @param {number} [maxTokens]
   * @returns {Promise<number[]>}
   */
  generate(ids, maxTokens) {
    return this.#worker.call("generate", { ids: [...ids], max_tokens: maxTokens });
  }

  /**
   * How many tokens a conversation takes, with what the model's template puts around it.
   * @param {Message[]} messages
   * @returns {Promise<number>}
   */
  countTokens(messages) {
    return this.#worker.call("count_tokens", { messages });
  }

  /**
   * End this page's running answer; what there is of it stays valid.
   * @returns {Promise<void>}
   */
  interrupt() {
    return this.#worker.call("interrupt");
  }

  /**
   * Open the GPU anew and load the same model again, after an error named DeviceLost.
   * @param {{onProgress?: (progress: Progress) => void}} [options]
   */
  async reload({ onProgress } = {}) {
    this.info = { ...this.info, ...(await this.#worker.call("reload", {}, onProgress)) };
  }

  /**
   * Counts and speeds of the last request.
   * @returns {Promise<Record<string, any>>}
   */
  stats() {
    return this.#worker.call("stats");
  }

  /** Free the model, its GPU memory and the worker; what is shared goes with the last page that uses it. */
  async close() {
    await this.#worker.call("close").finally(() => this.#worker.terminate());
  }
}

/** `llm.chat.completions` and `llm.completions`. */
class Completions {
  #worker;
  #method;

  /**
   * @param {WorkerClient} worker
   * @param {"chat" | "complete"} method  of the worker
   */
  constructor(worker, method) {
    this.#worker = worker;
    this.#method = method;
  }

  /**
   * OpenAI's names and shapes, and the options of sampling that docs/python.md lists; with `stream: true` an async
   * iterable of chunks, and leaving it early ends this request. An aborted `signal` does so too, at once, and its
   * reason is thrown.
   *
   *     for await (const chunk of llm.chat.completions.create({ messages, stream: true }))
   *       element.append(chunk.choices[0].delta.content ?? "");
   *
   * @overload
   * @param {ChatOptions & {stream: true}} request
   * @param {{signal?: AbortSignal}} [options]
   * @returns {AsyncGenerator<ChatCompletionChunk, void, void>}
   */
  /**
   * @overload
   * @param {ChatOptions & {stream?: false}} request
   * @param {{signal?: AbortSignal}} [options]
   * @returns {Promise<ChatCompletion>}
   */
  /**
   * @param {ChatOptions & {stream?: boolean}} request
   * @param {{signal?: AbortSignal}} [options]
   */
  create(request, { signal } = {}) {
    if (!request.stream) return this.#worker.call(this.#method, request, undefined, signal);
    const left = new AbortController();
    const chunks = new ReadableStream({
      start: (controller) => {
        const show = (chunk) => left.signal.aborted || controller.enqueue(chunk);
        const either = signal ? AbortSignal.any([left.signal, signal]) : left.signal;
        const done = this.#worker.call(this.#method, request, show, either);
        done.then(() => controller.close()).catch((error) => controller.error(error));
      },
      cancel: () => left.abort(),
    });
    return values(chunks);
  }
}

/** Not every browser can iterate a stream. */
async function* values(stream) {
  const reader = stream.getReader();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => {}); // a failed stream has nothing to cancel
  }
}
