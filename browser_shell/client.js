/**
 * Calls into worker.js: in a worker of this page's own, or in one that all pages of the site share.
 *
 * A page that shares holds a Web Lock for as long as it takes part. The worker waits for the same lock, so it learns
 * that the page is gone however that came about: closed, navigated away, crashed.
 */

export const failure = (name, message, details = {}) => Object.assign(new Error(message), { name, ...details });

export class WorkerClient {
  /** @type {Worker | MessagePort} */
  #port;
  #letGo;
  #pending = new Map();
  #nextId = 1;
  #ended = null;
  /** Whether other pages may use the same worker. */
  shared;

  /** @param {string | null} sharedName  of the worker that pages share; null: one of our own */
  constructor(sharedName = null) {
    this.shared = sharedName !== null;
    const worker = this.shared ? this.#share(sharedName) : this.#start();
    this.#port.onmessage = ({ data }) => this.#receive(data);
    worker.onerror = ({ message }) => {
      const missing = "worker.js may be missing on the server, upload the whole site";
      const what = message ? `stopped: ${message}` : `did not start: ${missing}`;
      this.#end(failure("FetchError", `webllm's worker ${what}`));
    };
  }

  #start() {
    const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module", name: "webllm" });
    this.#port = worker;
    this.#letGo = () => worker.terminate();
    return worker;
  }

  #share(name) {
    const worker = new SharedWorker(new URL("worker.js", import.meta.url), { type: "module", name });
    this.#port = worker.port;
    const gone = new Promise((resolve) => (this.#letGo = resolve));
    const lock = `webllm ${crypto.randomUUID()}`;
    navigator.locks.request(lock, () => {
      worker.port.postMessage({ method: "hello", args: { lock } });
      return gone;
    });
    return worker;
  }

  /**
   * @param {string} method  of worker.js
   * @param {object} [args]
   * @param {(event: any) => void} [onEvent]  called with what comes before the value
   * @param {AbortSignal} [signal]  ends this call and no other; its reason is thrown
   * @returns {Promise<any>}
   */
  call(method, args = {}, onEvent = () => {}, signal) {
    if (signal?.aborted) return Promise.reject(signal.reason);
    const { id, value } = this.begin(method, args, onEvent);
    signal?.addEventListener("abort", () => this.#cancel(id, signal.reason));
    return value;
  }

  /**
   * The same for who cancels by `id` and waits for how the call ends then.
   * @returns {{id: number, value: Promise<any>}}
   */
  begin(method, args, onEvent) {
    const id = this.#nextId++;
    if (this.#ended) return { id, value: Promise.reject(this.#ended) };
    const value = new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject, onEvent });
      this.#port.postMessage({ id, method, args });
    });
    return { id, value };
  }

  #cancel(id, reason) {
    const call = this.#pending.get(id);
    if (!call) return;
    this.#pending.delete(id);
    call.reject(reason);
    this.call("cancel", { number: id }).catch(() => {});
  }

  /** End our own worker, or let go of the shared one: it ends what we asked it for. */
  terminate(reason = failure("Closed", "the model was closed; load it again")) {
    this.#letGo();
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
