/**
 * The names and shapes of Chrome's Prompt API (https://webmachinelearning.github.io/prompt-api) over a model of ours.
 * All sessions of a page use one loaded model; each request carries its own conversation.
 *
 * What is left out says so: `responseConstraint`, `tools`, `prefix` and other inputs than text raise NotSupportedError.
 *
 * @typedef {{role: "system" | "user" | "assistant", content: string | {type: "text", value: string}[]}} PromptMessage
 * @typedef {string | PromptMessage[]} Prompt
 * @typedef {{type: "text", languages?: string[]}} Expected
 * @typedef {"unavailable" | "downloadable" | "downloading" | "available"} Availability
 * @typedef {object} CreateOptions
 * @property {PromptMessage[]} [initialPrompts]  stay, however long the conversation grows; a system message comes first
 * @property {number} [temperature]
 * @property {number} [topK]
 * @property {"most-predictable" | "predictable" | "balanced" | "creative" | "most-creative" | "default"} [samplingMode]
 * @property {Expected[]} [expectedInputs]
 * @property {Expected[]} [expectedOutputs]
 * @property {(monitor: EventTarget) => void} [monitor]  gets `downloadprogress` events, loaded from 0 to 1
 * @property {AbortSignal} [signal]
 * @typedef {{signal?: AbortSignal, responseConstraint?: never}} PromptOptions
 */

import { listModels } from "./locate.js";
import { load } from "./model.js";

const TEMPERATURES = { "most-predictable": 0, predictable: 0.4, balanced: 0.8, creative: 1.1, "most-creative": 1.5 };
const ROLES = ["system", "user", "assistant"];

const error = (name, message) => new DOMException(message, name);
const unsupported = (what) => error("NotSupportedError", `webllm's LanguageModel has no ${what} yet`);

/** @type {{model: string | File | null, options: import("./model.js").LoadOptions}} */
let configured = { model: null, options: {} }; // what `create` loads; null: the first of site.json
/** @type {Promise<import("./model.js").Model> | null} */
let loading = null;
let loaded = false;
const monitors = new Set(); // told of the load that is under way

/**
 * Choose the model of all sessions; without it, it is the first of site.json.
 *
 *     useModel("smollm2-135m-instruct", { shared: true });
 *
 * @param {string | File} model  as for `load`
 * @param {import("./model.js").LoadOptions} [options]
 */
export function useModel(model, options = {}) {
  if (loading) throw error("InvalidStateError", "LanguageModel has a model already: choose it before the first create()");
  configured = { model, options };
}

/** Make `LanguageModel` global, also in the place of the browser's own. */
export function installLanguageModel() {
  Object.defineProperty(globalThis, "LanguageModel", { value: LanguageModel, configurable: true, writable: true });
}

/** A session: a conversation with the model. Made by `create`. */
export class LanguageModel extends EventTarget {
  #llm;
  #initial;
  #history = [];
  #sampling;
  #usage;
  #destroyed = new AbortController();
  /** @type {((event: Event) => void) | null} */
  oncontextoverflow = null;

  /**
   * @param {CreateOptions} [options]
   * @returns {Promise<Availability>}
   */
  static async availability(options = {}) {
    try {
      check(options);
    } catch {
      return "unavailable";
    }
    if (loaded) return "available";
    if (loading) return "downloading";
    const adapter = await navigator.gpu?.requestAdapter();
    const model = configured.model ?? Object.keys(await listModels().catch(() => ({})))[0];
    return adapter && model ? "downloadable" : "unavailable";
  }

  /**
   * @param {CreateOptions} [options]
   * @returns {Promise<LanguageModel>}
   */
  static async create({ initialPrompts = [], monitor, signal, ...options } = {}) {
    check(options);
    const initial = messagesOf(initialPrompts, true);
    signal?.throwIfAborted();
    const llm = await abortable(loadOnce(monitor), signal);
    const session = new LanguageModel(token, llm, initial, [], samplingOf(options));
    session.#usage = initial.length ? await llm.countTokens(initial) : 0;
    if (session.#usage > llm.info.context) throw tooLong(session.#usage, llm.info.context);
    return session;
  }

  /** For `create` and `clone` only. */
  constructor(secret, llm, initial, history, sampling) {
    if (secret !== token) throw new TypeError("Illegal constructor: use LanguageModel.create()");
    super();
    this.#llm = llm;
    this.#initial = initial;
    this.#history = history;
    this.#sampling = sampling;
  }

  /** Tokens that a conversation may have. */
  get contextWindow() {
    return this.#llm.info.context;
  }

  /** Tokens that this one has. */
  get contextUsage() {
    return this.#usage;
  }

  get inputQuota() {
    return this.contextWindow;
  }

  get inputUsage() {
    return this.contextUsage;
  }

  /**
   * Tokens that a prompt would add.
   * @param {Prompt} input  @param {PromptOptions} [options]
   * @returns {Promise<number>}
   */
  async measureContextUsage(input, { signal } = {}) {
    this.#check(signal);
    const messages = [...this.#initial, ...this.#history];
    const before = messages.length ? await this.#llm.countTokens(messages) : 0;
    return (await this.#llm.countTokens([...messages, ...messagesOf(input)])) - before;
  }

  /** @param {Prompt} input  @param {PromptOptions} [options] */
  measureInputUsage(input, options) {
    return this.measureContextUsage(input, options);
  }

  /**
   * @param {Prompt} input  @param {PromptOptions} [options]
   * @returns {Promise<string>} the answer
   */
  async prompt(input, options) {
    let answer = "";
    for await (const piece of this.#answer(input, options)) answer += piece;
    return answer;
  }

  /**
   * @param {Prompt} input  @param {PromptOptions} [options]
   * @returns {ReadableStream<string>} the answer in pieces; cancelling it ends the answer
   */
  promptStreaming(input, options) {
    const pieces = this.#answer(input, options);
    /** @type {UnderlyingDefaultSource<string>} */
    const source = {
      pull: async (controller) => {
        const { value, done } = await pieces.next();
        done ? controller.close() : controller.enqueue(/** @type {string} */ (value));
      },
      cancel: async () => void (await pieces.return()),
    };
    return new ReadableStream(source);
  }

  /**
   * Add messages without asking for an answer.
   * @param {Prompt} input  @param {{signal?: AbortSignal}} [options]
   */
  async append(input, { signal } = {}) {
    this.#check(signal);
    const messages = await this.#fitting(messagesOf(input));
    this.#history = messages.slice(this.#initial.length);
    this.#usage = await this.#llm.countTokens(messages);
  }

  /**
   * A session that goes on from here by itself.
   * @param {{signal?: AbortSignal}} [options]
   * @returns {Promise<LanguageModel>}
   */
  async clone({ signal } = {}) {
    this.#check(signal);
    const copy = new LanguageModel(token, this.#llm, this.#initial, [...this.#history], this.#sampling);
    copy.#usage = this.#usage;
    return copy;
  }

  /** End the session and its answers; the model stays for others. */
  destroy() {
    this.#destroyed.abort(error("AbortError", "the session was destroyed"));
  }

  /**
   * @param {Prompt} input  @param {PromptOptions} [options]
   * @returns {AsyncGenerator<string, void, void>}
   */
  async *#answer(input, { signal, responseConstraint } = {}) {
    if (responseConstraint !== undefined) throw unsupported("responseConstraint");
    this.#check(signal);
    const messages = await this.#fitting(messagesOf(input));
    const either = AbortSignal.any([this.#destroyed.signal, ...(signal ? [signal] : [])]);
    const request = { ...this.#sampling, messages, stream: true };
    let content = "";
    try {
      for await (const { choices: [choice], usage } of this.#llm.chat.completions.create(request, { signal: either })) {
        content += choice?.delta.content ?? "";
        if (choice?.delta.content) yield choice.delta.content;
        if (usage) this.#usage = usage.total_tokens;
      }
    } catch (failed) {
      if (failed.name === "DeviceLost") this.#llm.reload().catch(() => {}); // the next request waits for it
      throw failed;
    }
    this.#history = [...messages.slice(this.#initial.length), { role: "assistant", content }];
  }

  /** The whole conversation with these messages; the oldest are forgotten where all have no room. */
  async #fitting(added) {
    let kept = this.#history;
    for (;;) {
      const messages = [...this.#initial, ...kept, ...added];
      const tokens = await this.#llm.countTokens(messages);
      if (tokens < this.contextWindow) {
        if (kept !== this.#history) this.#tellOverflow();
        return messages;
      }
      if (!kept.length) throw tooLong(tokens, this.contextWindow);
      kept = kept.slice(2); // a question and its answer
    }
  }

  #tellOverflow() {
    const event = new Event("contextoverflow");
    this.oncontextoverflow?.(event);
    this.dispatchEvent(event);
  }

  #check(signal) {
    this.#destroyed.signal.throwIfAborted();
    signal?.throwIfAborted();
  }
}

const token = Symbol("made by LanguageModel.create()");

/** One load for all sessions; one that failed may be tried again. */
async function loadOnce(monitor) {
  const target = new EventTarget();
  monitor?.(target);
  const tell = (part) => target.dispatchEvent(new ProgressEvent("downloadprogress", { lengthComputable: true, loaded: part, total: 1 }));
  if (loaded) {
    tell(0);
    tell(1);
    return loading;
  }
  monitors.add(tell);
  try {
    loading ??= loadConfigured();
    const llm = await loading;
    loaded = true;
    return llm;
  } catch (failed) {
    loading = null;
    if (failed.name === "NoAdapter") throw error("NotSupportedError", failed.message);
    throw failed;
  } finally {
    monitors.delete(tell);
  }
}

async function loadConfigured() {
  const model = configured.model ?? Object.keys(await listModels())[0];
  if (!model) throw error("NotSupportedError", "no model is chosen and site.json lists none: call webllm.useModel(...)");
  monitors.forEach((tell) => tell(0));
  const onProgress = ({ phase, loaded: bytes, total }) => phase === "weights" && monitors.forEach((tell) => tell(bytes / total));
  return load(model, { ...configured.options, onProgress });
}

/** @template T  @param {Promise<T>} promise  @param {AbortSignal} [signal]  @returns {Promise<T>} */
function abortable(promise, signal) {
  if (!signal) return promise;
  const aborted = new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  return Promise.race([promise, aborted]);
}

/** @param {CreateOptions & {tools?: object[]}} options */
function check({ expectedInputs = [], expectedOutputs = [], tools = [], samplingMode = "default" }) {
  const other = [...expectedInputs, ...expectedOutputs].find(({ type }) => type !== "text");
  if (other) throw unsupported(`input or output of type "${other.type}"`);
  if (tools.length) throw unsupported("tools");
  if (samplingMode !== "default" && !(samplingMode in TEMPERATURES)) {
    throw new TypeError(`samplingMode must be one of ${Object.keys(TEMPERATURES).join(", ")}, got ${samplingMode}`);
  }
}

/** @param {CreateOptions} options */
function samplingOf({ temperature, topK, samplingMode = "default" }) {
  const chosen = temperature ?? TEMPERATURES[samplingMode];
  return { ...(chosen === undefined ? {} : { temperature: chosen }), ...(topK === undefined ? {} : { top_k: topK }) };
}

/** @returns {import("./model.js").Message[]} */
function messagesOf(prompt, initial = false) {
  if (typeof prompt === "string") return [{ role: "user", content: prompt }];
  return prompt.map(({ role, content, prefix }, i) => {
    if (!ROLES.includes(role)) throw new TypeError(`a message's role must be one of ${ROLES.join(", ")}, got ${role}`);
    if (prefix) throw unsupported("prefix");
    if (role === "system" && !(initial && i === 0)) {
      throw error("NotSupportedError", "a system message can only be the first of initialPrompts");
    }
    return { role, content: textOf(content) };
  });
}

function textOf(content) {
  if (typeof content === "string") return content;
  const other = content.find(({ type }) => type !== "text");
  if (other) throw unsupported(`content of type "${other.type}"`);
  return content.map(({ value }) => value).join("");
}

function tooLong(requested, quota) {
  const message = `the prompt has ${requested} tokens and the context holds ${quota}: shorten it, or load the model with more context`;
  const { QuotaExceededError } = /** @type {any} */ (globalThis); // not every browser has it
  if (QuotaExceededError) return new QuotaExceededError(message, { requested, quota });
  return Object.assign(error("QuotaExceededError", message), { requested, quota });
}
