/**
 * A model file that is read out of the browser's store, and fetched into it where it is not there yet: its bytes go to the
 * reader as they come. Pages that want the same file at once share one download: the page that has the lock fetches, the
 * others read along, and when it dies one of them goes on.
 *
 * @typedef {object} Entry  a model as site.json lists it; all but `url` may be left out
 * @property {string} url
 * @property {string[]} mirrors  further addresses of the same file
 * @property {string} name
 * @property {number | null} bytes
 * @property {string | null} sha256  of the whole file, in hex
 * @property {number} piece_bytes
 * @property {string[] | null} pieces  SHA-256 of each piece, in hex
 */

import { Download } from "./download.js";
import { Kept, PIECE_BYTES, failure, seconds } from "./kept.js";
import { find, folders, keyOf, locked } from "./store.js";

const HELD = 64 << 20; // bytes of pieces in memory, for the reader
const READ_AHEAD = 2; // pieces
const TRIES = 3; // how often a piece may be found damaged on the disk
const PROGRESS_MS = 100;
const HEX = /^[0-9a-f]{64}$/;

/**
 * Open a file that is here or that a server has.
 * @param {Partial<Entry>} given
 * @param {(progress: object) => void} [onProgress]  {phase: "download", loaded, total, stored, tensors, seconds}: `stored` of
 *   the bytes `loaded` were here before
 * @returns {Promise<import("./sources.js").Source | null>} null where the browser keeps nothing
 * @throws what a Download throws; RequestError for an entry that contradicts itself
 */
export async function openStored(given, onProgress = () => {}) {
  const entry = complete(given);
  const here = await folders();
  if (!here) return null;
  const kept = new Kept(here, await keyOf(entry));
  await kept.refresh();
  const other = kept.complete || !entry.sha256 ? null : await find(entry.sha256); // it may have come by another address
  const source = new StoredSource(entry, other?.complete ? other : kept, onProgress);
  await source.opened();
  return source;
}

/** Open what is here under a name; null if nothing is. */
export async function openByName(name, onProgress = () => {}) {
  const kept = await find(name);
  if (!kept) return null;
  const source = new StoredSource(complete({ ...kept.manifest, pieces: kept.manifest.hashes }), kept, onProgress);
  await source.opened();
  return source;
}

function complete(given) {
  const { url, mirrors = [], bytes = null, sha256 = null, pieces = null, piece_bytes = PIECE_BYTES } = given;
  const name = given.name ?? (url.split(/[?#]/)[0].split("/").at(-1).replace(/\.gguf$/i, "") || url);
  const positive = (value) => Number.isSafeInteger(value) && value > 0;
  const wrong =
    (bytes !== null && !positive(bytes) && "bytes") ||
    (!positive(piece_bytes) && "piece_bytes") ||
    (sha256 !== null && !HEX.test(sha256) && "sha256") ||
    (pieces && (pieces.length !== Math.ceil(bytes / piece_bytes) || !pieces.every((hash) => HEX.test(hash))) && "pieces");
  if (wrong) throw failure("RequestError", `${name}: \`${wrong}\` is wrong: see how site.json describes a model`);
  return { name, url, mirrors, bytes, sha256, pieces, piece_bytes };
}

class StoredSource {
  #kept;
  #shared;
  #held = new Map(); // pieces, or promises of them
  #cursor = 0; // the piece that was read last
  #pieceBytes = 0;

  constructor(entry, kept, onProgress) {
    this.name = entry.url ?? entry.name;
    this.#kept = kept;
    this.#shared = new SharedDownload(kept, entry, (index, bytes) => this.#hold(index, bytes), onProgress);
  }

  async opened() {
    if (!this.#kept.complete) await this.#shared.ready();
    else this.#kept.save({ last_used: seconds() }).catch(() => {}); // of no weight on a full disk
    this.size = this.#kept.manifest.bytes;
    this.#pieceBytes = this.#kept.manifest.piece_bytes;
  }

  async read(offset, size) {
    const target = new Uint8Array(Math.max(0, size));
    await this.readInto(target, offset);
    return target;
  }

  async readInto(target, offset) {
    if (offset < 0 || offset + target.length > this.size) {
      const wanted = `wanted bytes ${offset} to ${offset + target.length}, but the file has ${this.size}`;
      throw failure("Truncated", `${this.name}: ${wanted}; fetch it anew`);
    }
    for (let at = 0; at < target.length; ) {
      const index = Math.floor((offset + at) / this.#pieceBytes);
      const from = offset + at - index * this.#pieceBytes;
      const part = (await this.#piece(index)).subarray(from, from + target.length - at);
      target.set(part, at);
      at += part.length;
    }
  }

  forget(offset) {
    const first = Math.floor(offset / this.#pieceBytes);
    for (const index of this.#held.keys()) if (index < first) this.#held.delete(index);
  }

  /** The download goes on: what it brings stays. */
  pause() {}

  /** A download that is under way ends; what has come stays in the store. */
  close() {
    this.#shared.close();
    this.#held.clear();
  }

  async #piece(index) {
    this.#cursor = index;
    for (let tries = 0; tries < TRIES; tries++) {
      if (!this.#kept.complete) await this.#shared.need(index, () => this.#held.has(index));
      const bytes = await this.#load(index);
      for (let next = index + 1; next <= index + READ_AHEAD; next++) if (this.#kept.has(next)) this.#load(next);
      if (bytes) return bytes;
    }
    throw failure("ChecksumMismatch", `${this.name}: the disk damages what is stored there (piece ${index}); use another`);
  }

  /** @returns {Promise<Uint8Array | null>} */
  #load(index) {
    if (!this.#held.has(index)) {
      const reading = this.#kept.read(index).catch(() => null);
      this.#held.set(index, reading);
      reading.then((bytes) => bytes || this.#held.get(index) !== reading || this.#held.delete(index));
    }
    return this.#held.get(index);
  }

  #hold(index, bytes) {
    const ahead = HELD / this.#kept.manifest.piece_bytes;
    if (index >= this.#cursor && index < this.#cursor + ahead) this.#held.set(index, bytes);
  }
}

/** A download by this page, or by another that has begun before. */
class SharedDownload {
  #kept;
  #entry;
  #onPiece;
  #meter;
  #channel = null; // to the other pages; while this runs
  #download = null; // while it is this page's
  #ready = false; // the manifest is that of the file on the server
  #error = null;
  #waiting = [];
  #closed = new AbortController();

  constructor(kept, entry, onPiece, onProgress) {
    this.#kept = kept;
    this.#entry = entry;
    this.#onPiece = onPiece;
    this.#meter = new Meter(kept, onProgress);
  }

  /** The size of the file is known. */
  async ready() {
    this.#start();
    await this.#until(() => this.#ready);
  }

  /** Piece `index` is held or in the store. The last one counts only when the whole is known to be right. */
  async need(index, isHeld) {
    const kept = this.#kept;
    if (this.#error?.name === "ChecksumMismatch") throw this.#error; // what was read before it was found may be wrong
    const there = () => (isHeld() || kept.has(index)) && !(kept.unchecked && index === kept.count - 1);
    if (there()) return;
    this.#start();
    this.#download?.want(index);
    await this.#until(there);
  }

  close() {
    this.#meter.stop();
    this.#closed.abort(failure("Closed", `${this.#entry.name}: was closed while it was fetched`));
  }

  #start() {
    if (this.#channel) return;
    this.#error = null;
    this.#channel = new BroadcastChannel(`webllm ${this.#kept.key}`);
    this.#channel.onmessage = ({ data }) => this.#hear(data);
    this.#channel.postMessage({ what: "hello" });
    locked(this.#kept.key, () => this.#fetch(), { signal: this.#closed.signal })
      .catch((error) => (this.#error = error))
      .finally(() => this.#end());
  }

  async #fetch() {
    const size = this.#kept.manifest?.bytes;
    await this.#kept.refresh();
    const told = {
      onReady: () => this.#say({ what: "ready" }),
      onBytes: () => this.#meter.report(this.#download.bytesComing),
      onPiece: (index, bytes) => {
        this.#onPiece(index, bytes);
        this.#tell({ what: "piece" });
      },
      onStored: (index, hash) => this.#say({ what: "piece", index, hash }),
    };
    this.#download = new Download(this.#kept, this.#entry, told, this.#closed.signal);
    if (!this.#kept.complete) await this.#download.run();
    if (this.#ready && size && size !== this.#kept.manifest.bytes) {
      throw failure("FetchError", `${this.#entry.url}: the file changed meanwhile: load the model again`);
    }
    this.#say({ what: "ready" });
  }

  /** Tell the other pages, and who waits here. */
  #say(message) {
    this.#channel.postMessage(message);
    this.#tell(message);
  }

  #tell({ what }) {
    this.#ready ||= what === "ready";
    this.#meter.report(this.#download?.bytesComing ?? 0, this.#kept.complete);
    for (const wake of this.#waiting.splice(0)) wake();
  }

  async #hear(message) {
    if (message.what === "hello") return this.#download && this.#ready && this.#channel.postMessage({ what: "ready" });
    if (this.#download) return; // it is this page's turn by now
    if (message.what === "ready") await this.#kept.refresh();
    else if (this.#ready) this.#kept.note(message.index, message.hash);
    this.#tell(message);
  }

  #end() {
    this.#channel.close();
    this.#channel = this.#download = null;
    this.#tell({ what: "end" });
  }

  async #until(holds) {
    while (!holds()) {
      if (!this.#channel) throw this.#error ?? failure("FetchError", `${this.#entry.name}: was deleted while it was read`);
      await new Promise((resolve) => this.#waiting.push(resolve));
    }
  }
}

/** Tells how much of a file is here, at most ten times a second and at the end. */
class Meter {
  #kept;
  #onProgress;
  #started = performance.now();
  #told = 0;
  #stored = null; // bytes that were here before

  constructor(kept, onProgress) {
    this.#kept = kept;
    this.#onProgress = onProgress;
  }

  stop() {
    this.#onProgress = () => {};
  }

  report(coming, last = false) {
    const now = performance.now();
    if (!this.#kept.manifest || (now - this.#told < PROGRESS_MS && !last)) return;
    this.#told = now;
    const loaded = this.#kept.storedBytes + coming;
    this.#stored ??= loaded;
    const seconds = (now - this.#started) / 1000;
    const total = this.#kept.manifest.bytes;
    this.#onProgress({ phase: "download", loaded, total, stored: this.#stored, tensors: 0, seconds });
  }
}
