/** A web server's answer to a request for a part of a file, read with patience that ends. */

import { failure } from "./kept.js";

const STALL_MS = 60_000; // a server that sends nothing for so long is given up

/**
 * Ask for `length` bytes of a file from `offset` on.
 * @param {number | null} size  of the file, where it is known
 * @param {AbortSignal} signal
 * @returns {Promise<Answer>}
 * @throws ModelNotFound, FetchError; with `final`, asking again would not help
 */
export async function ask(url, offset, length, size, signal) {
  const watch = new Watch(url, signal);
  try {
    const response = await watch.over(send(url, `bytes=${offset}-${offset + length - 1}`, watch.signal));
    const known = await place(url, response, offset, size, watch.signal);
    return new Answer(url, response, known, watch);
  } catch (error) {
    watch.end();
    throw error;
  }
}

function send(url, range, signal) {
  // Chromium's HTTP cache would let one request of an address wait for the other, and keep the file a second time.
  return fetch(url, { headers: { Range: range }, cache: "no-store", signal }).catch((error) => {
    const reason = "check the address and the network, and that the server allows this page (CORS)";
    throw failure("FetchError", `${url}: ${error.message}; ${reason}`);
  });
}

/** What is known of the file, from status and headers. */
async function place(url, response, offset, size, signal) {
  const { status, headers } = response;
  const etag = headers.get("ETag");
  const length = Number(headers.get("Content-Length") ?? NaN);
  if (status === 206) {
    const [, start, total] = /^bytes (\d+)-\d+\/(\d+)$/.exec(headers.get("Content-Range") ?? "") ?? [];
    if (total && Number(start) === offset) return { size: Number(total), etag, whole: false };
    const hidden = headers.get("Content-Range") === null; // CORS may hide it
    if (hidden) return { size: size ?? (await sizeOf(url, signal)), etag, whole: false };
  }
  if (status === 200 && (length > 0 || size)) return { size: length || size, etag, whole: true };
  throw refusal(url, response);
}

function refusal(url, { status, statusText }) {
  if (status === 404 || status === 410) {
    const what = `the server has no such file (HTTP ${status}); check the address`;
    return Object.assign(failure("ModelNotFound", `${url}: ${what}`), { final: true });
  }
  const wanted = "wanted 200 with a length, or 206 with the range that was asked for";
  const error = failure("FetchError", `${url}: the server answered HTTP ${status} ${statusText}; ${wanted}`);
  const passing = status < 400 || status === 408 || status === 429 || status >= 500;
  return Object.assign(error, { final: !passing });
}

async function sizeOf(url, signal) {
  const { headers } = await fetch(url, { method: "HEAD", cache: "no-store", signal }).catch(() => ({ headers: new Headers() }));
  const size = Number(headers.get("Content-Length"));
  if (size > 0) return size;
  throw failure("FetchError", `${url}: the server tells no size: it should expose Content-Range to this page`);
}

/** The body of an answer: of the `whole` file, or of the part that was asked for. */
export class Answer {
  #reader;
  #rest = new Uint8Array(); // came with the last chunk, not yet asked for
  #watch;

  constructor(url, response, { size, etag, whole }, watch) {
    this.url = url;
    this.size = size;
    this.etag = etag;
    this.whole = whole;
    this.#watch = watch;
    this.#reader = response.body.getReader();
  }

  /**
   * The next `size` bytes.
   * @param {(came: number) => void} onBytes  told how many of them are there
   * @throws FetchError, Truncated
   */
  async take(size, onBytes) {
    const bytes = new Uint8Array(size);
    for (let at = 0; at < size; onBytes(at)) {
      if (!this.#rest.length) this.#rest = await this.#next(at, size);
      const part = this.#rest.subarray(0, size - at);
      bytes.set(part, at);
      this.#rest = this.#rest.subarray(part.length);
      at += part.length;
    }
    return bytes;
  }

  async #next(at, size) {
    const { value, done } = await this.#watch.over(this.#reader.read()).catch((error) => {
      throw failure("FetchError", `${this.url}: the connection broke (${error.message})`);
    });
    if (done) throw failure("Truncated", `${this.url}: the answer ended after ${at} of ${size} bytes`);
    return value;
  }

  /** Let go of the connection. */
  end() {
    this.#watch.end();
    this.#reader.cancel().catch(() => {});
  }
}

/** Ends a request with its `signal`, and where nothing comes for too long. */
class Watch {
  #controller = new AbortController();
  #url;
  #outer;
  #abort = () => this.#controller.abort(this.#outer.reason);

  constructor(url, signal) {
    this.#url = url;
    this.#outer = signal;
    signal.addEventListener("abort", this.#abort);
    if (signal.aborted) this.#abort();
  }

  get signal() {
    return this.#controller.signal;
  }

  /** Wait for `promise`, but not for ever. */
  async over(promise) {
    const stalled = failure("FetchError", `${this.#url}: nothing came for ${STALL_MS / 1000} s`);
    const timer = setTimeout(() => this.#controller.abort(stalled), STALL_MS);
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
    }
  }

  end() {
    this.#outer.removeEventListener("abort", this.#abort);
  }
}
