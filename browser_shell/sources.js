/**
 * Bytes of model files in the browser: out of the browser's store, into which a web server's files are fetched; straight
 * from a web server, with or without Range, where nothing may be kept; or from a file the user picked. Nothing here knows
 * what is in the file. Errors carry the name of Python's class.
 *
 * @typedef {object} Source
 * @property {string} name  URL or file name, for messages
 * @property {number} size  bytes
 * @property {(offset: number, size: number) => Promise<Uint8Array>} read  exactly these bytes
 * @property {(target: Uint8Array, offset: number) => Promise<void>} readInto  fills `target`
 * @property {(offset: number) => void} forget  bytes before `offset` are not wanted again
 * @property {() => void} pause  lets go of the connection; the next read opens another
 * @property {() => void} close
 */

import { openByName, openStored } from "./stored_source.js";

const READ_AHEAD = 64 << 20; // bytes taken from the network before anyone asks for them
const SKIP = 1 << 20; // a gap up to this many bytes is read over rather than asked around

/** @type {Map<string, Promise<Source>>} opened before anyone asked */
const early = new Map();

/**
 * Start fetching a file now; the next `openSource(url)` takes over what has come by then. Nothing of a folder: its files
 * are asked for by name.
 * @param {Partial<import("./stored_source.js").Entry>} entry  without a url, one that is stored under its name
 * @param {(progress: object) => void} [onProgress]  see openStored
 * @param {boolean} [keep]  false: nothing of it is stored
 */
export function prefetch(entry, onProgress, keep = true) {
  const location = entry.url ?? entry.name;
  if (early.has(location) || location.endsWith("/")) return;
  const source = openEntry(entry, onProgress, keep);
  source.catch(() => {}); // told to whoever opens it
  early.set(location, source);
}

/** Make a picked file known under `name`, for the next `openSource(name)`. */
export function adoptFile(name, file) {
  early.set(name, Promise.resolve(new FileSource(name, file)));
}

/**
 * Open a model file.
 * @param {string | File | Partial<import("./stored_source.js").Entry>} location  a name that is stored, an address, or
 *   an entry of site.json
 * @param {(progress: object) => void} [onProgress]  see openStored
 * @param {boolean} [keep]  false: nothing of it is stored
 * @returns {Promise<Source>}
 * @throws ModelNotFound, FetchError
 */
export function openSource(location, onProgress, keep = true) {
  if (location instanceof Blob) return Promise.resolve(new FileSource(location.name ?? "file", location));
  const source = early.get(/** @type {string} */ (location)) ?? openLocation(location, onProgress, keep);
  early.delete(/** @type {string} */ (location));
  return source;
}

/** @returns {Promise<Source>} */
async function openLocation(location, onProgress, keep) {
  if (typeof location === "object") return openEntry(location, onProgress, keep);
  const stored = /[/:]/.test(location) ? null : await openByName(location, onProgress);
  return stored ?? openEntry({ url: new URL(location, self.location.href).href }, onProgress, keep);
}

/** @returns {Promise<Source>} */
async function openEntry(entry, onProgress, keep) {
  if (!entry.url) return (await openByName(entry.name, onProgress)) ?? HttpSource.open(entry.name);
  const stored = keep && entry.url.startsWith("http") ? await openStored(entry, onProgress) : null;
  return stored ?? HttpSource.open(entry.url);
}

const failure = (name, message) => Object.assign(new Error(message), { name });

function checkRange(source, offset, size) {
  if (offset >= 0 && offset + size <= source.size) return;
  const wanted = `wanted bytes ${offset} to ${offset + size}, but the file has ${source.size}`;
  throw failure("Truncated", `${source.name}: ${wanted}; fetch it anew`);
}

/** A file the user picked. */
class FileSource {
  #file;

  constructor(name, file) {
    this.name = name;
    this.size = file.size;
    this.#file = file;
  }

  async read(offset, size) {
    checkRange(this, offset, size);
    try {
      return new Uint8Array(await this.#file.slice(offset, offset + size).arrayBuffer());
    } catch (error) {
      throw failure("FetchError", `${this.name}: cannot be read (${error.message}); pick the file again`);
    }
  }

  async readInto(target, offset) {
    target.set(await this.read(offset, target.length));
  }

  forget() {}

  pause() {}

  close() {}
}

/**
 * A file on a web server, read through one streaming answer that is reopened only to go elsewhere.
 * Bytes stay until they are forgotten: the header is read first, and the weights begin inside the
 * piece that held its end.
 */
class HttpSource {
  name;
  size = 0;
  #reader = null;
  #chunks = []; // held bytes, from #start to #end
  #start = 0;
  #end = 0;
  #ranges = true;
  #last = Promise.resolve(); // one reader at a time

  static async open(url) {
    const source = new HttpSource();
    source.name = url;
    await source.#goTo(0);
    return source;
  }

  async read(offset, size) {
    checkRange(this, offset, size);
    const target = new Uint8Array(size);
    await this.readInto(target, offset);
    return target;
  }

  readInto(target, offset) {
    const reading = this.#last.then(() => this.#fill(target, offset));
    this.#last = reading.catch(() => {});
    return reading;
  }

  forget(offset) {
    while (this.#chunks.length && this.#start + this.#chunks[0].length <= offset) {
      this.#start += this.#chunks.shift().length;
    }
  }

  pause() {
    this.close();
  }

  close() {
    this.#reader?.cancel().catch(() => {});
    this.#reader = null;
    this.#chunks = [];
    this.#start = this.#end = 0;
  }

  async #fill(target, offset) {
    checkRange(this, offset, target.length);
    const reach = this.#ranges ? this.#end + SKIP : Infinity;
    if (!this.#reader || offset < this.#start || offset > reach) await this.#goTo(offset);
    while (this.#end < offset + target.length) {
      await this.#pull();
      if (this.#end < offset) this.forget(this.#end);
    }
    this.#copy(target, offset);
  }

  #copy(target, offset) {
    let at = this.#start;
    for (const chunk of this.#chunks) {
      const from = Math.max(offset, at);
      const to = Math.min(offset + target.length, at + chunk.length);
      if (from < to) target.set(chunk.subarray(from - at, to - at), from - offset);
      at += chunk.length;
    }
  }

  async #pull() {
    const { value, done } = await this.#reader.read().catch((error) => {
      throw this.#broken("FetchError", `the connection broke (${error.message})`);
    });
    if (done) throw this.#broken("Truncated", "the answer ended");
    this.#chunks.push(value);
    this.#end += value.length;
  }

  #broken(name, what) {
    const at = this.#end;
    this.close();
    return failure(name, `${this.name}: ${what} at byte ${at} of ${this.size}; try again`);
  }

  /** Ask for the file from `offset` on; a server without Range starts at 0 again. */
  async #goTo(offset) {
    this.close();
    const response = await fetch(this.name, { headers: { Range: `bytes=${offset}-` } }).catch((error) => {
      const reason = "check the address and the network, and that the server allows this page (CORS)";
      throw failure("FetchError", `${this.name}: ${error.message}; ${reason}`);
    });
    const [start, size] = place(this.name, response, offset);
    if (this.size && this.size !== size) {
      throw failure("FetchError", `${this.name}: had ${this.size} bytes and now has ${size}: load the model again`);
    }
    this.size = size;
    this.#ranges = response.status === 206;
    this.#start = this.#end = start;
    this.#reader = readAhead(response.body).getReader();
  }
}

/** The same stream behind a queue that fills by itself. */
function readAhead(stream) {
  const queue = new ByteLengthQueuingStrategy({ highWaterMark: READ_AHEAD });
  return stream.pipeThrough(new TransformStream({}, undefined, queue));
}

/** [where the body starts, size of the file], from status and headers. */
function place(url, response, offset) {
  const { status, headers } = response;
  if (status === 404 || status === 410) {
    throw failure("ModelNotFound", `${url}: the server has no such file (HTTP ${status}); check the address`);
  }
  const length = Number(headers.get("Content-Length") ?? NaN);
  if (status === 206) {
    const found = /^bytes (\d+)-\d+\/(\d+)$/.exec(headers.get("Content-Range") ?? ""); // CORS may hide it
    const total = found ? Number(found[2]) : offset + length;
    if (total > 0 && (!found || Number(found[1]) === offset)) return [offset, total];
  }
  if (status === 200 && length > 0) return [0, length];
  if (status === 416) throw failure("Truncated", `${url}: the file is empty`);
  const wanted = "wanted 200 with a length, or 206 with the range that was asked for";
  throw failure("FetchError", `${url}: the server answered HTTP ${status} ${response.statusText}; ${wanted}`);
}
