/**
 * `<web-llm-chat model="smollm2-135m-instruct">`: a whole chat. What stands between its tags is shown until the first
 * question. Questions, answers and errors are shown as text and never become HTML.
 *
 * Attributes, each also a property: model, system, placeholder, label (for screen readers), temperature, max-tokens
 * (maxTokens), context, shared (one model for all tabs of the site), loading="lazy" (the visitor starts the load).
 * Events: `ready` (detail: `llm.info`), `message` (detail: {role, content}; each question, and each answer when it
 * ends) and `error` (detail: the Error, which the visitor sees too). The element's `data-state` is "idle" (no model is
 * loaded), "loading", "ready", "generating" or "error".
 *
 * Colours and the fonts of code are the custom properties of parts.css, set on the element; the parts are conversation,
 * message, user, assistant, author, text, code, composer, input, send, stop, alert, new-chat.
 *
 * @typedef {import("./model.js").Model} Model
 * @typedef {import("./model.js").Message} Message
 */

import { Alert } from "./alert.js";
import { chatFrame } from "./chat_frame.js";
import { failure } from "./client.js";
import { Composer } from "./composer.js";
import { announce, keepFocus, make, show } from "./dom.js";
import { Loading } from "./loading.js";
import { addMessage, describeUsage, follow, keepMessages, scrollToEnd } from "./messages.js";

const SLOW = "No GPU was found, so the model runs on the processor. Answers are the same, but slow.";
const BUSY = "an answer is being written: wait for it, or call stop() first";

export class ChatElement extends HTMLElement {
  static observedAttributes = ["model", "placeholder", "label", "context", "shared"];

  /** Options of `create` for every question, beside the attributes'. @type {Partial<import("./model.js").ChatOptions>} */
  options = {};
  /** @type {Model | null} */
  #llm = null;
  /** @type {Promise<Model> | null} */
  #loaded = null;
  #aborter = new AbortController(); // of the load that is under way
  /** @type {Message[]} */
  #conversation = []; // a new array after every change
  /** @type {{answer: Message, aborter: AbortController} | null} */
  #running = null; // the answer that is being written
  #connected = false;
  #root = this.attachShadow({ mode: "open" });
  #alert;
  #loading;
  #composer;

  constructor() {
    super();
    const style = make("link", { rel: "stylesheet", href: new URL("chat_element.css", import.meta.url).href });
    const chat = chatFrame();
    style.onload = style.onerror = () => (chat.hidden = false); // never shown without its style
    this.#root.append(style, chat);
    this.#alert = new Alert(this.#root);
    this.#loading = new Loading(this.#root);
    this.#composer = new Composer(this.#root, { send: () => this.#send(), stop: () => this.stop() });
    this.#$("cancel").addEventListener("click", () => this.#aborter.abort());
    this.#$("new-chat").addEventListener("click", () => this.#startOver());
    chat.addEventListener("keydown", ({ key, isComposing }) => key === "Escape" && !isComposing && this.stop());
  }

  // Attributes

  get model() { return this.getAttribute("model") ?? ""; }
  set model(name) { this.setAttribute("model", name); }
  get system() { return this.getAttribute("system") ?? ""; }
  set system(text) { this.setAttribute("system", text); }
  get placeholder() { return this.getAttribute("placeholder") ?? "Write a message"; }
  set placeholder(text) { this.setAttribute("placeholder", text); }
  get label() { return this.getAttribute("label") ?? "Chat"; }
  set label(text) { this.setAttribute("label", text); }
  get loading() { return this.getAttribute("loading") === "lazy" ? "lazy" : "eager"; }
  set loading(when) { this.setAttribute("loading", when); }
  get shared() { return this.hasAttribute("shared"); }
  set shared(shared) { this.toggleAttribute("shared", shared); }
  get temperature() { return this.#number("temperature"); }
  set temperature(value) { this.#setNumber("temperature", value); }
  get maxTokens() { return this.#number("max-tokens"); }
  set maxTokens(value) { this.#setNumber("max-tokens", value); }
  get context() { return this.#number("context"); }
  set context(value) { this.#setNumber("context", value); }

  /** @returns {number | null} */
  #number(name) {
    const text = this.getAttribute(name);
    return text === null || text === "" || Number.isNaN(Number(text)) ? null : Number(text);
  }

  #setNumber(name, value) {
    value == null ? this.removeAttribute(name) : this.setAttribute(name, String(value));
  }

  // What a page calls

  /** The loaded model, or null. @returns {Model | null} */
  get llm() {
    return this.#llm;
  }

  /** The conversation so far. @returns {Message[]} */
  get messages() {
    return this.#conversation.map((message) => ({ ...message }));
  }

  /**
   * Load the model now; a second call gives the same. Also shown in the element.
   * @returns {Promise<Model>}
   */
  load() {
    this.#loaded ??= this.#open();
    return this.#loaded;
  }

  /**
   * Ask as if the visitor had written it.
   * @param {string} text
   * @returns {Promise<string>} the answer
   * @throws what `create` throws; RequestError while an answer is being written
   */
  async ask(text) {
    if (this.#running) throw failure("RequestError", `<web-llm-chat>: ${BUSY}`);
    await this.load();
    return this.#ask(String(text));
  }

  /** End the answer that is being written; what there is of it stays. */
  stop() {
    if (this.#running?.answer.content) this.#llm?.interrupt();
    else this.#running?.aborter.abort();
  }

  /** Forget the conversation; the model stays. */
  reset() {
    this.#running?.aborter.abort();
    this.#running = null;
    this.#conversation = [];
    keepMessages(this.#$("messages"), 0);
    this.#$("stats").textContent = "";
    this.#$("welcome").hidden = false;
    if (this.dataset.state === "loading") return;
    this.#alert.hide();
    this.#llm ? this.#setState("ready") : this.#offerLoad();
  }

  // Life

  connectedCallback() {
    if (this.#connected) return; // it was only moved
    this.#connected = true;
    this.#applyTexts();
    this.loading === "lazy" ? this.#offerLoad() : this.#begin();
  }

  /** Leave nothing on the GPU of an element that is gone; one that is moved is back at once. */
  disconnectedCallback() {
    queueMicrotask(() => this.isConnected || this.#close());
  }

  attributeChangedCallback(name, before, after) {
    if (before === after || !this.#connected) return;
    this.#applyTexts();
    if (!["model", "context", "shared"].includes(name)) return;
    this.#close();
    this.connectedCallback();
  }

  #applyTexts() {
    this.#$("prompt").setAttribute("placeholder", this.placeholder);
    this.#$("chat").setAttribute("aria-label", this.label);
  }

  #close() {
    this.#connected = false;
    this.#aborter.abort();
    this.#aborter = new AbortController();
    this.#llm?.close().catch(() => {}); // it may be lost already
    this.#llm = this.#loaded = null;
    this.#setState("idle");
    this.reset();
  }

  // Loading

  /** Load because the visitor wants to; what goes wrong is shown. */
  #begin() {
    this.load().catch(() => {});
  }

  async #open() {
    const mine = (this.#aborter = new AbortController());
    this.#showLoading();
    try {
      const llm = await window.webllm.load(this.#needModel(), this.#loadOptions(mine.signal));
      mine.signal.throwIfAborted();
      this.#llm = llm;
      this.#showReady();
      return llm;
    } catch (error) {
      if (this.#aborter === mine) this.#loadFailed(error);
      throw error;
    }
  }

  #needModel() {
    if (this.model) return this.model;
    throw failure("ModelNotFound", '<web-llm-chat> has no model: give a name of site.json or a URL, <web-llm-chat model="...">');
  }

  #loadOptions(signal) {
    const context = this.context === null ? {} : { context: this.context };
    return { ...context, shared: this.shared, signal, onProgress: (event) => signal.aborted || this.#loading.show(event) };
  }

  #loadFailed(error) {
    this.#loaded = null;
    if (error.name === "AbortError") return this.#offerLoad();
    this.#showError(error, ["Try again", () => this.#begin()]);
  }

  /** Load the model anew after its GPU went away; the conversation goes on. */
  async #reload() {
    const llm = this.#llm;
    this.#showLoading();
    try {
      await llm.reload({ onProgress: (event) => this.#loading.show(event) });
      if (this.#llm === llm) this.#showReady();
    } catch (error) {
      if (this.#llm === llm) this.#showError(error, ["Reload the model", () => this.#reload()]);
    }
  }

  #offerLoad() {
    this.#setState("idle");
    this.#alert.tell("The model runs on your own GPU, once it is loaded.", ["Load it", () => this.#begin()]);
  }

  #showLoading() {
    this.#loading.start();
    this.#alert.hide();
    this.#setState("loading");
  }

  #showReady() {
    this.#alert.hide();
    show(this.#$("notice"), this.#llm.info.adapter.software ? SLOW : "");
    this.#setState("ready");
    announce("The model is ready", this.#root);
    this.#emit("ready", this.#llm.info);
  }

  // Asking

  #send() {
    const text = this.#composer.text.trim();
    this.#composer.text = "";
    this.ask(text).catch(() => {}); // it is shown
  }

  async #ask(text) {
    /** @type {Message} */
    const question = { role: "user", content: text };
    /** @type {Message} */
    const answer = { role: "assistant", content: "" };
    const asked = [...this.#conversation, question];
    const mine = (this.#running = { answer, aborter: new AbortController() });
    this.#showQuestion(question);
    const view = this.#addToView(answer);
    let failed = null;
    try {
      const messages = [...this.#systemMessages(), ...asked];
      const chunks = this.#llm.chat.completions.create({ ...this.#createOptions(), messages, stream: true }, mine.aborter);
      for await (const chunk of chunks) this.#grow(answer, view, chunk);
    } catch (error) {
      failed = error;
    }
    if (this.#running !== mine) throw failure("AbortError", "<web-llm-chat>: the chat was reset before the answer ended");
    this.#running = null;
    this.#finish(asked, answer, failed);
    if (failed) throw failed;
    return answer.content;
  }

  #createOptions() {
    const named = { temperature: this.temperature, max_tokens: this.maxTokens };
    return { ...Object.fromEntries(Object.entries(named).filter(([, value]) => value !== null)), ...this.options };
  }

  /** @returns {Message[]} */
  #systemMessages() {
    return this.system ? [{ role: "system", content: this.system }] : [];
  }

  #showQuestion(question) {
    this.#$("welcome").hidden = true;
    this.#alert.hide();
    this.#addToView(question);
    this.#setState("generating");
    this.#emit("message", question);
  }

  /** @param {import("./model.js").ChatCompletionChunk} chunk */
  #grow(answer, view, chunk) {
    const { choices: [choice], usage } = chunk;
    if (this.#running?.answer !== answer) return; // reset() came in between
    const piece = choice?.delta.content ?? "";
    answer.content += piece;
    follow(this.#$("conversation"), () => view.append(piece));
    if (usage) this.#$("stats").textContent = describeUsage(usage, choice?.finish_reason);
  }

  /** Half an answer is kept; where there is none, so is the conversation as it was, and the question goes to the prompt. */
  #finish(asked, answer, failed) {
    if (failed && !answer.content) {
      keepMessages(this.#$("messages"), this.#conversation.length);
      this.#$("welcome").hidden = this.#conversation.length > 0;
      this.#composer.text = [asked.at(-1).content, this.#composer.text].filter(Boolean).join("\n");
    } else {
      this.#conversation = [...asked, answer];
      this.#emit("message", answer);
    }
    if (failed && failed.name !== "AbortError") return this.#showError(failed, this.#wayOut(failed));
    this.#setState("ready");
    announce(answer.content, this.#root);
  }

  #wayOut({ name }) {
    if (name === "DeviceLost") return ["Reload the model", () => this.#reload()];
    if (name === "ContextFull") return ["New chat", () => this.#startOver()];
  }

  #startOver() {
    this.reset();
    this.#composer.focus();
  }

  // What is seen

  /** @returns {any} an element */
  #$(id) {
    return this.#root.getElementById(id);
  }

  #setState(state) {
    const generating = state === "generating";
    const change = () => {
      this.dataset.state = this.#$("chat").dataset.state = state;
      this.#composer.setState({ ready: Boolean(this.#llm) && (state === "ready" || state === "error"), generating });
      this.#$("loading").hidden = state !== "loading";
      this.#$("cancel").hidden = Boolean(this.#llm);
      this.#$("new-chat").disabled = !this.#llm || state === "loading";
    };
    keepFocus(this.#root, change, () => (generating ? this.#composer.focusStop() : this.#composer.focus()));
  }

  #addToView({ role, content }) {
    const view = addMessage(this.#$("messages"), role, role === "user" ? "You" : "Answer");
    view.append(content);
    scrollToEnd(this.#$("conversation"));
    return view;
  }

  #showError(error, wayOut) {
    this.#setState("error");
    this.#alert.showError(error, wayOut);
    this.#emit("error", error);
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
