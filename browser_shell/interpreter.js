/** Python for the cells of a page: one worker, one namespace, one cell at a time. */

import { failure, WorkerClient } from "./client.js";

export class Interpreter {
  /** @type {WorkerClient | null} */
  #worker = null;
  #last = Promise.resolve(); // the cell that runs, and those that wait

  /**
   * Run a cell after those that were asked for before.
   * @param {string} code
   * @param {string} name  as tracebacks call it
   * @param {{onStart: () => void, onEvent: (event: object) => void, signal: AbortSignal}} options
   *   signal: interrupts the cell, or takes it out of the queue
   * @returns {Promise<{value: string | null, error: string | null}>}
   */
  run(code, name, { onStart, onEvent, signal }) {
    const before = this.#last;
    const run = (async () => {
      await before;
      signal.throwIfAborted();
      onStart();
      this.#worker ??= new WorkerClient();
      return this.#interruptible(this.#worker, { code, name, page: document.baseURI }, onEvent, signal);
    })();
    this.#last = run.catch(() => {});
    return run;
  }

  /** What was stopped still tells how it ended. */
  #interruptible(worker, args, onEvent, signal) {
    const { id, value } = worker.begin("run_cell", args, onEvent);
    signal.addEventListener("abort", () => worker.call("cancel", { number: id }).catch(() => {}));
    return value;
  }

  /** End Python, whatever it does. Its names are gone; the next cell starts it anew. */
  restart() {
    this.#worker?.terminate(failure("Restarted", "Python was started anew: what cells had made is gone, run them again"));
    this.#worker = null;
  }
}
