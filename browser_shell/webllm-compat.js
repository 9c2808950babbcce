// @ts-check
/**
 * Web LLM's API (npm `@mlc-ai/web-llm`) over webllm, so that a page which uses it changes one import:
 *
 *     import { CreateMLCEngine } from "./webllm-compat.js";
 *     const engine = await CreateMLCEngine("SmolLM2-135M-Instruct-q0f16-MLC", { initProgressCallback: console.log });
 *     const reply = await engine.chat.completions.create({ messages: [{ role: "user", content: "Hello!" }] });
 *
 * docs/from-web-llm.md tells what is the same, what differs, and what is not there yet. Errors have Web LLM's names where
 * it has one for them, and webllm's otherwise.
 *
 * @import { AppConfig, Chat, ChatCompletion, ChatCompletionChunk, ChatCompletionRequest, ChatCompletionRequestBase,
 *   ChatCompletionRequestNonStreaming, ChatCompletionRequestStreaming, ChatOptions, Completion, CompletionCreateParams,
 *   CompletionCreateParamsBase, CompletionCreateParamsNonStreaming, CompletionCreateParamsStreaming, Completions,
 *   CreateEmbeddingResponse, EmbeddingCreateParams, Embeddings, InitProgressCallback, LogitProcessor, LogLevel,
 *   MLCEngineConfig, MLCEngineInterface, ModelRecord, ResumeProbeResult, ResumeResult } from "@mlc-ai/web-llm"
 * @import { Model } from "./model.js"
 */

import { checkChat, checkCompletion, failure, optionsOf, refuse, settingsOf } from "./compat-requests.js";
import * as cache from "./cache.js";
import { listModels } from "./locate.js";
import { load } from "./model.js";

const SMOLLM2 = { model: "smollm2-135m-instruct", model_lib: "", vram_required_MB: 250, low_resource_required: true };

/**
 * The models that webllm knows, under the ids that Web LLM has for the same weights, and under webllm's own names.
 * `model` is what webllm's `load` takes; there is no `model_lib`, as kernels are not compiled for a model.
 *
 * @type {AppConfig}
 */
export const prebuiltAppConfig = {
  model_list: ["SmolLM2-135M-Instruct-q0f16-MLC", "SmolLM2-135M-Instruct-q0f32-MLC", "smollm2-135m-instruct"].map(
    (model_id) => ({ ...SMOLLM2, model_id }),
  ),
};

export const modelVersion = "webllm";
export const modelLibURLPrefix = "";
/** @type {string[]} */
export const functionCallingModelIds = [];
export const ModelType = Object.freeze({ LLM: 0, embedding: 1, VLM: 2, 0: "LLM", 1: "embedding", 2: "VLM" });

/** A loaded model, and what is remembered of its last answer. */
class Loaded {
  text = "";
  /** @type {number[]} */
  ids = []; // given to forwardTokensAndSample since the chat was reset

  /**
   * @param {string} id
   * @param {Model} model
   * @param {Record<string, any>} sampling
   */
  constructor(id, model, sampling) {
    this.id = id;
    this.model = model;
    this.sampling = sampling;
  }
}

/**
 * An engine that runs models in workers of webllm's own.
 *
 * @implements {MLCEngineInterface}
 */
export class MLCEngine {
  /** @type {Map<string, Loaded>} */
  #models = new Map();
  #loading = new AbortController();
  /** @type {AppConfig} */
  #appConfig;
  /** @type {InitProgressCallback | undefined} */
  #onProgress;

  /** @param {MLCEngineConfig} [config] */
  constructor({ appConfig, initProgressCallback, logitProcessorRegistry } = {}) {
    this.#appConfig = appConfig ?? prebuiltAppConfig;
    this.#onProgress = initProgressCallback;
    this.setLogitProcessorRegistry(logitProcessorRegistry);
    /** @type {Chat} */
    this.chat = faceOf({ completions: faceOf({ create: this.chatCompletion.bind(this) }) });
    /** @type {Completions} */
    this.completions = faceOf({ create: this.completion.bind(this) });
    /** @type {Embeddings} */
    this.embeddings = faceOf({ create: this.embedding.bind(this) });
  }

  /** @param {AppConfig} appConfig */
  setAppConfig(appConfig) {
    this.#appConfig = appConfig;
  }

  /** @param {InitProgressCallback} [initProgressCallback] */
  setInitProgressCallback(initProgressCallback) {
    this.#onProgress = initProgressCallback;
  }

  getInitProgressCallback() {
    return this.#onProgress;
  }

  /** @param {Map<string, LogitProcessor>} [registry] */
  setLogitProcessorRegistry(registry) {
    if (registry?.size) refuse(["logitProcessorRegistry"], "MLCEngineConfig");
  }

  /**
   * Nothing is logged, whatever the level.
   *
   * @param {LogLevel} logLevel
   */
  setLogLevel(logLevel) {}

  /**
   * Load one or several models in place of those that are loaded; ids and options are looked at before any is given up.
   *
   * @param {string | string[]} modelId
   * @param {ChatOptions | ChatOptions[]} [chatOpts]
   * @returns {Promise<void>}
   */
  async reload(modelId, chatOpts) {
    const ids = [modelId].flat();
    const chats = chatOpts === undefined ? ids.map(() => undefined) : [chatOpts].flat();
    if (chats.length !== ids.length)
      throw failure("ReloadArgumentSizeUnmatchedError", `${chats.length} chatOpts for ${ids.length} models: give one each`);
    if (new Set(ids).size < ids.length)
      throw failure("ReloadModelIdNotUniqueError", `a model is named twice in ${ids.join(", ")}`);
    const records = await Promise.all(ids.map((id) => recordOf(id, this.#appConfig)));
    const settings = records.map((record, i) => settingsOf(record, chats[i]));
    await this.unload();
    const { signal } = (this.#loading = new AbortController());
    for (const [i, record] of records.entries()) {
      const model = await this.#load(record, settings[i].options, signal);
      if (!model) return; // unload() or another reload() came in between, which Web LLM does not tell either
      this.#models.set(record.model_id, new Loaded(record.model_id, model, settings[i].sampling));
    }
  }

  /**
   * @param {ModelRecord} record
   * @param {{context?: number}} options
   * @param {AbortSignal} signal
   * @returns {Promise<Model | null>}  null if it was aborted
   */
  async #load({ model, model_id }, options, signal) {
    const started = performance.now();
    /** @param {number} progress @param {string} text */
    const tell = (progress, text) =>
      this.#onProgress?.({ progress, timeElapsed: Math.round((performance.now() - started) / 1000), text });
    let fetching = false; // meanwhile what goes to the GPU is not told
    tell(0, `Start to fetch ${model_id}`);
    try {
      const loaded = await load(model, {
        ...options,
        signal,
        onProgress: ({ phase, loaded, total }) => {
          if (phase === "download") fetching = loaded < total;
          const other = phase !== "download" && (fetching || phase !== "weights"); // such as what it will take
          if (other || loaded >= total) return; // the end is told below
          tell(loaded / total, `Loading ${model_id}: ${megabytes(loaded, total)}`);
        },
      });
      tell(1, `Finish loading on WebGPU - ${loaded.info.adapter.name}`);
      return loaded;
    } catch (error) {
      if (signal.aborted) return null;
      throw renamed(error);
    }
  }

  /** Free all models and their memory. */
  async unload() {
    this.#loading.abort();
    const models = [...this.#models.values()];
    this.#models.clear();
    await Promise.all(models.map(({ model }) => model.close()));
  }

  /**
   * @overload
   * @param {ChatCompletionRequestNonStreaming} request
   * @returns {Promise<ChatCompletion>}
   */
  /**
   * @overload
   * @param {ChatCompletionRequestStreaming} request
   * @returns {Promise<AsyncIterable<ChatCompletionChunk>>}
   */
  /**
   * @overload
   * @param {ChatCompletionRequestBase} request
   * @returns {Promise<AsyncIterable<ChatCompletionChunk> | ChatCompletion>}
   */
  /**
   * Answer a conversation. Requests to one model are served in turn.
   *
   * @param {ChatCompletionRequest} request
   * @returns {Promise<any>}
   */
  async chatCompletion(request) {
    const loaded = this.#pick("ChatCompletionRequest", request.model);
    checkChat(request, loaded.id);
    const { messages } = request;
    return answer(loaded, request, (options) => loaded.model.chat.completions.create({ ...options, messages: /** @type {any} */ (messages) }));
  }

  /**
   * @overload
   * @param {CompletionCreateParamsNonStreaming} request
   * @returns {Promise<Completion>}
   */
  /**
   * @overload
   * @param {CompletionCreateParamsStreaming} request
   * @returns {Promise<AsyncIterable<Completion>>}
   */
  /**
   * @overload
   * @param {CompletionCreateParamsBase} request
   * @returns {Promise<AsyncIterable<Completion> | Completion>}
   */
  /**
   * Continue a text, without the model's template.
   *
   * @param {CompletionCreateParams} request
   * @returns {Promise<any>}
   */
  async completion(request) {
    const loaded = this.#pick("CompletionCreateParams", request.model);
    checkCompletion(request, loaded.id);
    const own = { prompt: request.prompt, echo: Boolean(request.echo) };
    return answer(loaded, request, (options) => loaded.model.completions.create({ ...options, ...own }));
  }

  /**
   * Not there yet: always an error.
   *
   * @param {EmbeddingCreateParams} request
   * @returns {Promise<CreateEmbeddingResponse>}
   */
  async embedding(request) {
    const { id } = this.#pick("EmbeddingCreateParams", request.model);
    throw failure("EmbeddingUnsupportedModelError", `${id} makes no embeddings; webllm has no model that does yet`);
  }

  /** End the running answers; what there is of them stays. */
  async interruptGenerate() {
    await Promise.all(Array.from(this.#models.values(), ({ model }) => model.interrupt()));
  }

  /**
   * Forget the last answer. What the cache holds of a conversation is found again by its text, so a request is never
   * influenced by those before it.
   *
   * @param {boolean} [keepStats]  they are the last request's either way
   * @param {string} [modelId]
   */
  async resetChat(keepStats, modelId) {
    if (!this.#models.size) return;
    const loaded = this.#pick("resetChat", modelId);
    loaded.text = "";
    loaded.ids = [];
  }

  /**
   * The last answer, or what there is of it.
   *
   * @param {string} [modelId]
   */
  async getMessage(modelId) {
    return this.#pick("getMessage", modelId).text;
  }

  /**
   * Speeds of the last request, as a text.
   *
   * @param {string} [modelId]
   */
  async runtimeStatsText(modelId) {
    const stats = await this.#pick("runtimeStatsText", modelId).model.stats();
    const [prefill, decode] = [stats.prefill_tokens_per_s, stats.decode_tokens_per_s].map((speed) => speed.toFixed(4));
    return `prefill: ${prefill} tokens/sec, decoding: ${decode} tokens/sec`;
  }

  /** Bytes that a kernel may bind at once on this machine's GPU. */
  async getMaxStorageBufferBindingSize() {
    return (await adapter()).limits.maxStorageBufferBindingSize;
  }

  /** Who made this machine's GPU: "nvidia", "apple", ...; "" where the browser does not say. */
  async getGPUVendor() {
    return (await adapter()).info.vendor;
  }

  /**
   * The likeliest token after all that was given since the chat was reset.
   *
   * @param {number[]} inputIds
   * @param {boolean} isPrefill  only told for statistics, which tell for themselves here
   * @param {string} [modelId]
   * @returns {Promise<number>}
   */
  async forwardTokensAndSample(inputIds, isPrefill, modelId) {
    const loaded = this.#pick("forwardTokensAndSample", modelId);
    const ids = [...loaded.ids, ...inputIds];
    const [token] = await loaded.model.generate(ids, 1).catch(rethrow);
    loaded.ids = ids;
    return token;
  }

  /** @returns {Promise<ResumeProbeResult[]>}  none: answers are not kept */
  async listResumableSessions() {
    return [];
  }

  /**
   * Not there yet: always an error.
   *
   * @param {string} sessionId
   * @param {object} [options]
   * @returns {Promise<ResumeResult>}
   */
  async resumeChatCompletion(sessionId, options) {
    throw failure("UnsupportedFieldsError", `answers are not kept, so there is no session ${sessionId} to resume`);
  }

  /** @param {string} sessionId  none is kept */
  async deleteResumableSession(sessionId) {}

  /**
   * The model that a request is for.
   *
   * @param {string} requestName
   * @param {string | null} [modelId]
   */
  #pick(requestName, modelId) {
    const ids = [...this.#models.keys()];
    const there = ids.join(", ");
    if (!ids.length) throw failure(this._notLoaded, `${requestName}: no model is loaded; await engine.reload(modelId)`);
    if (modelId == null && ids.length > 1)
      throw failure("UnclearModelToUseError", `${requestName}: several models are loaded (${there}); name one in model`);
    const loaded = this.#models.get(modelId ?? ids[0]);
    if (loaded) return loaded;
    throw failure("SpecifiedModelNotFoundError", `${requestName}: ${modelId} is not loaded; there are: ${there}`);
  }

  /** The name of the error of a request to an engine without a model. */
  get _notLoaded() {
    return "ModelNotLoadedError";
  }
}

/**
 * Web LLM's engine over a worker of the page. webllm's models have workers of their own, so the page's has nothing to do.
 */
export class WebWorkerMLCEngine extends MLCEngine {
  /** @param {any} worker @param {MLCEngineConfig} [config] */
  constructor(worker, config) {
    super({ ...config, logitProcessorRegistry: undefined }); // Web LLM has them in the page only, too
    this.worker = worker;
  }

  get _notLoaded() {
    return "WorkerEngineModelNotLoadedError";
  }
}

/** See `WebWorkerMLCEngine`; a service worker, or an extension's, has nothing to do either. */
export class ServiceWorkerMLCEngine extends WebWorkerMLCEngine {
  /** @param {MLCEngineConfig} [config] @param {number} [keepAliveMs] */
  constructor(config, keepAliveMs) {
    super(null, config);
  }
}

/** What a page's own worker makes; it takes messages, and does nothing with them. */
export class WebWorkerMLCEngineHandler {
  /** @param {any} event */
  onmessage(event) {}

  /** @param {any} message */
  postMessage(message) {}

  /** @param {Map<string, LogitProcessor>} [registry] */
  setLogitProcessorRegistry(registry) {}
}

/** What a page's own service worker makes. */
export class ServiceWorkerMLCEngineHandler extends WebWorkerMLCEngineHandler {
  /** @param {any} [port]  an extension's */
  constructor(port) {
    super();
    this.port = port ?? null;
  }

  /** @param {any} port */
  setPort(port) {
    this.port = port;
  }

  /** @param {any} port */
  onPortDisconnect(port) {
    this.port = null;
  }
}

export {
  ServiceWorkerMLCEngine as ExtensionServiceWorkerMLCEngine,
  ServiceWorkerMLCEngineHandler as ExtensionServiceWorkerMLCEngineHandler,
  CreateServiceWorkerMLCEngine as CreateExtensionServiceWorkerMLCEngine,
};

/**
 * An engine with a model, or several.
 *
 * @param {string | string[]} modelId  of `prebuiltAppConfig` or `engineConfig.appConfig`, or a name of the site's models
 * @param {MLCEngineConfig} [engineConfig]
 * @param {ChatOptions | ChatOptions[]} [chatOpts]
 * @throws an Error named ModelNotFoundError, WebGPUNotAvailableError, UnsupportedFieldsError, ...
 */
export function CreateMLCEngine(modelId, engineConfig, chatOpts) {
  return withModel(new MLCEngine(engineConfig), modelId, chatOpts);
}

/**
 * @param {any} worker
 * @param {string | string[]} modelId
 * @param {MLCEngineConfig} [engineConfig]
 * @param {ChatOptions | ChatOptions[]} [chatOpts]
 */
export function CreateWebWorkerMLCEngine(worker, modelId, engineConfig, chatOpts) {
  return withModel(new WebWorkerMLCEngine(worker, engineConfig), modelId, chatOpts);
}

/**
 * @param {string | string[]} modelId
 * @param {MLCEngineConfig} [engineConfig]
 * @param {ChatOptions | ChatOptions[]} [chatOpts]
 * @param {number} [keepAliveMs]
 */
export function CreateServiceWorkerMLCEngine(modelId, engineConfig, chatOpts, keepAliveMs) {
  return withModel(new ServiceWorkerMLCEngine(engineConfig, keepAliveMs), modelId, chatOpts);
}

/**
 * Whether all of a model is in the browser's store.
 *
 * @param {string} modelId
 * @param {AppConfig} [appConfig]
 * @returns {Promise<boolean>}
 */
export async function hasModelInCache(modelId, appConfig) {
  return (await storedOf(modelId, appConfig))?.complete ?? false;
}

/**
 * Delete what there is of a model in the browser's store. A loaded one goes on.
 *
 * @param {string} modelId
 * @param {AppConfig} [appConfig]
 */
export async function deleteModelInCache(modelId, appConfig) {
  const stored = await storedOf(modelId, appConfig);
  if (stored) await cache.delete(stored.key);
}

/**
 * Web LLM stores a model's configuration and program apart from its weights. Here a model is one file, and that is all.
 *
 * @param {string} modelId
 * @param {AppConfig} [appConfig]
 */
export async function deleteChatConfigInCache(modelId, appConfig) {
  await storedOf(modelId, appConfig);
}

export { deleteModelInCache as deleteModelAllInfoInCache, deleteChatConfigInCache as deleteModelWasmInCache };

/** @param {string} modelId @param {AppConfig} [appConfig] */
async function storedOf(modelId, appConfig = prebuiltAppConfig) {
  const { model } = await recordOf(modelId, appConfig);
  const address = /[/:]/.test(model) ? new URL(model, globalThis.document?.baseURI ?? location.href).href : null;
  return (await cache.list()).find(({ name, url }) => name === model || (url !== null && url === address));
}

/**
 * @template {MLCEngine} Engine
 * @param {Engine} engine
 * @param {string | string[]} modelId
 * @param {ChatOptions | ChatOptions[]} [chatOpts]
 */
async function withModel(engine, modelId, chatOpts) {
  await engine.reload(modelId, chatOpts);
  return engine;
}

/**
 * Web LLM declares these as classes with a private field, which no other object has.
 *
 * @template Face
 * @param {object} object
 */
const faceOf = (object) => /** @type {Face} */ (/** @type {unknown} */ (object));

/**
 * The record of a model, its `model` being something that webllm loads.
 *
 * @param {string} modelId
 * @param {AppConfig} appConfig
 * @returns {Promise<ModelRecord>}
 */
async function recordOf(modelId, { model_list }) {
  const record = model_list.find(({ model_id }) => model_id === modelId);
  if (!record && (await listModels())[modelId]) return { model: modelId, model_id: modelId, model_lib: "" };
  const ids = model_list.map(({ model_id }) => model_id).join(", ") || "none";
  if (!record) throw failure("ModelNotFoundError", `no model ${modelId} in appConfig.model_list; there are: ${ids}`);
  if (record.model_type) refuse(["model_type"], `ModelRecord ${modelId}`);
  if (record.integrity || record.model_manifest) refuse(["integrity", "model_manifest"], `ModelRecord ${modelId}`);
  if (/\.gguf($|[?#])/.test(record.model) || !/[/:]/.test(record.model)) return record;
  const known = prebuiltAppConfig.model_list.find(({ model_id }) => model_id === modelId);
  if (known) return { ...record, model: known.model };
  const what = `${modelId}: ${record.model} is no .gguf file`;
  throw failure("ModelNotFoundError", `${what}, and MLC's own format is not read: give the URL of a .gguf file as model`);
}

/**
 * Run a request and give it Web LLM's shape.
 *
 * @param {Loaded} loaded
 * @param {Record<string, any>} request
 * @param {(options: Record<string, any>) => any} create
 */
async function answer(loaded, request, create) {
  const started = performance.now();
  const options = { ...loaded.sampling, ...optionsOf(request), stream: Boolean(request.stream) };
  loaded.text = "";
  if (request.stream) return chunksOf(loaded, create(options), started, request.stream_options?.include_usage);
  const made = await create(options).catch(rethrow);
  loaded.text = textOf(made.choices[0]);
  return shaped(made, loaded.id, { usage: usageOf(made.usage, started) });
}

/**
 * @param {Loaded} loaded
 * @param {AsyncIterable<any>} chunks
 * @param {number} started
 * @param {boolean} [withUsage]
 */
async function* chunksOf(loaded, chunks, started, withUsage) {
  try {
    for await (const chunk of chunks) {
      loaded.text += textOf(chunk.choices[0]);
      yield shaped(chunk, loaded.id);
      if (!chunk.usage || !withUsage) continue;
      yield shaped({ ...chunk, choices: [] }, loaded.id, { usage: usageOf(chunk.usage, started) });
    }
  } catch (error) {
    throw renamed(error);
  }
}

/** @param {any} made @param {string} model @param {object} [more] */
function shaped({ id, object, created, choices }, model, more) {
  return { id, object, created, model, choices: choices.map(choiceOf), ...more };
}

/** @param {any} choice */
function choiceOf({ index, finish_reason, delta, message, text }) {
  const said = message ?? delta;
  const told = said && Object.fromEntries(Object.entries(said).filter(([, value]) => value !== null));
  const what = message ? { message: told } : delta ? { delta: told } : { text };
  return { index, finish_reason, ...what, logprobs: null };
}

/** @param {any} choice @returns {string} */
const textOf = ({ message, delta, text }) => (message ?? delta)?.content ?? text ?? "";

/** @param {any} usage @param {number} started */
function usageOf(usage, started) {
  const { decode_tokens_per_s } = usage.extra;
  const extra = {
    ...usage.extra,
    e2e_latency_s: (performance.now() - started) / 1000,
    time_per_output_token_s: decode_tokens_per_s ? 1 / decode_tokens_per_s : 0,
  };
  return { ...usage, extra };
}

/** @type {Record<string, string>} */
const NAMES = {
  NoAdapter: "WebGPUNotAvailableError",
  ModelNotFound: "ModelNotFoundError",
  ContextFull: "ContextWindowSizeExceededError",
  DeviceLost: "DeviceLostError",
  Closed: "ModelNotLoadedError",
};

/** The error under Web LLM's name, where it has one. @param {any} error */
const renamed = (error) => Object.assign(error, { name: NAMES[error.name] ?? error.name });

/** @param {any} error @returns {never} */
function rethrow(error) {
  throw renamed(error);
}

/** @param {number} loaded @param {number} total */
const megabytes = (loaded, total) =>
  `${Math.round(loaded / 1e6)} of ${Math.round(total / 1e6)} MB, ${Math.floor((100 * loaded) / total)}% completed`;

async function adapter() {
  const found = await globalThis.navigator.gpu?.requestAdapter();
  if (found) return found;
  throw failure("WebGPUNotAvailableError", "WebGPU is not available in this browser, or it found no GPU");
}
