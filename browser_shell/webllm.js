/**
 * webllm for web pages: `await window.webllm.load(model)`. The model runs in a worker on this machine's GPU.
 *
 * @typedef {{phase: string, loaded: number, total: number, tensors: number, seconds: number}} Progress
 * @typedef {object} LoadOptions
 * @property {(progress: Progress) => void} [onProgress]  loaded and total in bytes; the phase "download" tells what is in
 *   the browser's store, `stored` bytes of it from before; "memory" in its total what the model will take on the GPU;
 *   "weights" what is there
 * @property {number} [context]  most tokens of a conversation
 * @property {"f16" | "f32" | "int8"} [kv]  numbers of the cache
 * @property {boolean} [exact]  no approximate kernels
 * @property {string} [adapter]  part of the GPU's name
 * @property {boolean | object} [tune]  true: measure which shapes of workgroups are fastest; an object: what that found
 *   in another load, `tuning` of `stats()`
 * @property {AbortSignal} [signal]  ends the load and frees what it had; `load` then throws the signal's reason
 * @property {GPUPowerPreference} [powerPreference]  which GPU, where there are several
 * @property {boolean} [keep]  false: the browser stores nothing of the model, and fetches it anew each time
 */

import * as cache from "./cache.js";

export { cache };

const failure = (name, message, details = {}) => Object.assign(new Error(message), { name, ...details });

/**
 * Load a model.
 *
 *     const llm = await window.webllm.load("smollm2-135m-instruct", { onProgress: console.log });
 *     const ids = await llm.generate([1, 9690], 8);
 *
 * @param {string | File | object} model  a name of site.json or of `cache.list()`, the URL of a .gguf file, a picked file,
 *   or what site.json would say of one: {url, mirrors, bytes, sha256, piece_bytes, pieces}, all but `url` where known
 * @param {LoadOptions} [options]
 * @returns {Promise<Model>}
 * @throws an Error whose name is one of webllm/errors.py: NoAdapter, ModelNotFound, FetchError, ...; of the GPU's
 *   own, with kernel, line and sizes where they are known
 */
export async function load(model, { onProgress, signal, powerPreference, ...options } = {}) {
  if (powerPreference) options.power_preference = powerPreference;
  signal?.throwIfAborted();
  if (options.keep !== false) cache.persist();
  const worker = new WorkerClient(); // first, as it starts Python
  const abort = () => worker.terminate(signal.reason);
  signal?.addEventListener("abort", abort);
  try {
    const location = await locate(model);
    return new Model(worker, await worker.call("load", { model: location, options }, onProgress));
  } catch (error) {
    worker.terminate();
    throw error;
  } finally {
    signal?.removeEventListener("abort", abort);
  }
}

/**
 * Measure a model's shape with random weights on this machine's GPU, as `webllm bench --config` does.
 *
 * @param {{config: object, quant?: string, prompt_tokens?: number[], decode_tokens?: number, at_context?: number[],
 *   repeats?: number}} request  config: the contents of a config.json
 * @param {(what: string) => void} [onNote]  told what is being measured
 */
export function bench(request, onNote) {
  return callOnce("bench", request, onNote);
}

/**
 * Test every kernel on this machine's GPU, as `webllm doctor` does.
 *
 * @param {{only?: string[]}} [request]  only: parts of the names of the tests to run
 * @param {(what: string) => void} [onNote]  told what is being tested
 * @returns {Promise<{adapter: object, features: string[], kernels: {kernel: string, variants: string[],
 *   nmse: number | null, error: string | null, ok: boolean}[]}>}
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

/** What site.json lists: name -> {url, bytes}. */
export async function listModels() {
  const url = new URL("site.json", import.meta.url);
  const response = await fetch(url).catch(() => null);
  if (response?.ok) return (await response.json()).models;
  throw failure("FetchError", `${url}: a part of this page is missing on the server: upload the whole site`);
}

/**
 * Keep this folder's page, Python and wheels, but no model, for when there is no network: sw.js caches them. For pages in this
 * folder.
 *
 * @returns {Promise<ServiceWorkerRegistration | null>}  null where there are no service workers
 */
export async function keepOffline() {
  const url = new URL("sw.js", import.meta.url);
  return (await navigator.serviceWorker?.register(url, { updateViaCache: "none" })) ?? null;
}

/** A loaded model. */
export class Model {
  #worker;

  constructor(worker, info) {
    this.#worker = worker;
    this.info = info;
    this.chat = { completions: { create: (request) => this.#answer("chat", request) } };
    this.completions = { create: (request) => this.#answer("complete", request) };
  }

  /** Greedy continuation of token ids; a stop id ends it and is included. */
  generate(ids, maxTokens) {
    return this.#worker.call("generate", { ids: [...ids], max_tokens: maxTokens });
  }

  /** End the running answer; what there is of it stays valid. */
  interrupt() {
    return this.#worker.call("interrupt");
  }

  /** Open the GPU anew and load the same model again, after an error named DeviceLost. */
  async reload({ onProgress } = {}) {
    this.info = { ...this.info, ...(await this.#worker.call("reload", {}, onProgress)) };
  }

  /** Counts and speeds of the last request. */
  stats() {
    return this.#worker.call("stats");
  }

  /** Free the model, its GPU memory and the worker. */
  async close() {
    await this.#worker.call("close").finally(() => this.#worker.terminate());
  }

  /**
   * OpenAI's names and shapes, and the options of sampling that docs/python.md lists; with `stream: true` an async
   * iterable of chunks, and leaving it early ends this request.
   */
  #answer(method, request) {
    if (!request.stream) return this.#worker.call(method, request);
    const left = new AbortController();
    const chunks = new ReadableStream({
      start: (controller) => {
        const show = (chunk) => left.signal.aborted || controller.enqueue(chunk);
        const done = this.#worker.call(method, request, show, left.signal);
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

/** Calls into worker.js. */
class WorkerClient {
  #worker = new Worker(new URL("worker.js", import.meta.url), { type: "module", name: "webllm" });
  #pending = new Map();
  #nextId = 1;
  #ended = null;

  constructor() {
    this.#worker.onmessage = ({ data }) => this.#receive(data);
    this.#worker.onerror = ({ message }) => {
      const missing = "worker.js may be missing on the server, upload the whole site";
      const what = message ? `stopped: ${message}` : `did not start: ${missing}`;
      this.#end(failure("FetchError", `webllm's worker ${what}`));
    };
  }

  call(method, args = {}, onEvent = () => {}, signal = null) {
    if (this.#ended) return Promise.reject(this.#ended);
    const id = this.#nextId++;
    signal?.addEventListener("abort", () => this.call("cancel", { number: id }).catch(() => {}));
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject, onEvent });
      this.#worker.postMessage({ id, method, args });
    });
  }

  terminate(reason = failure("Closed", "the model was closed; load it again")) {
    this.#worker.terminate();
    this.#end(reason);
  }

  #receive({ id, event, value, error }) {
    const call = this.#pending.get(id);
    if (!call) return;
    if (event !== undefined) return call.onEvent(event);
    this.#pending.delete(id);
    if (error) call.reject(failure(error.name, error.message, error.details));
    else call.resolve(value);
  }

  #end(reason) {
    this.#ended = reason;
    for (const { reject } of this.#pending.values()) reject(reason);
    this.#pending.clear();
  }
}

/** What the worker opens: a file, or an entry as site.json lists it, with its whole address. */
async function locate(model) {
  if (model instanceof File) return model;
  if (typeof model === "object") return resolved(model, document.baseURI);
  if (/[/:]|\.gguf$/.test(model)) return resolved({ url: model }, document.baseURI);
  const models = await listModels();
  if (Object.hasOwn(models, model)) return resolved({ name: model, ...models[model] }, import.meta.url);
  const stored = await cache.list();
  const found = stored.find(({ name }) => name === model);
  if (found) return { name: model };
  const known = [...Object.keys(models), ...stored.map(({ name }) => name)].join(", ") || "none";
  throw failure("ModelNotFound", `no model "${model}" here; there are: ${known}. Or give the URL of a .gguf file`);
}

function resolved({ url, mirrors = [], ...entry }, base) {
  return { ...entry, url: new URL(url, base).href, mirrors: mirrors.map((mirror) => new URL(mirror, base).href) };
}

globalThis.webllm = { load, bench, doctor, cache, keepOffline };
