/**
 * Fetches the pieces of a file that a store lacks: by ranges, several at once, in the order in which they are wanted; from
 * a server without Range in one stream. What comes damaged or does not come is asked for again, of the next mirror if
 * there is one. Whatever ends it, the pieces that came stay, and the next download goes on from there.
 */

import { ask } from "./answer.js";
import { failure, seconds } from "./kept.js";
import { checkRoom, filled } from "./store.js";

const PARALLEL = 4;
const ROUNDS = 5; // how often a mirror is asked for the same piece
const PAUSE_MS = 500; // before a second round; twice as long before each further one

export class Download {
  #kept;
  #entry;
  #told;
  #signal;
  #urls; // mirrors, the best known first
  #wanted = 0; // the piece that is read next
  #coming = new Map(); // pieces under way, and how much of each has come

  /**
   * @param {import("./kept.js").Kept} kept  seen as it is now, and locked
   * @param {import("./stored_source.js").Entry} entry
   * @param {{onReady: () => void, onBytes: () => void, onPiece: (index: number, bytes: Uint8Array) => void,
   *   onStored: (index: number, hash: string) => void}} told  onReady: the file's size is known; onPiece: a piece has come
   * @param {AbortSignal} signal
   */
  constructor(kept, entry, told, signal) {
    this.#kept = kept;
    this.#entry = entry;
    this.#told = told;
    this.#signal = signal;
    this.#urls = new Set([entry.url, ...entry.mirrors].filter(Boolean)); // what was imported has none
  }

  /** Bytes of pieces that are not whole yet. */
  get bytesComing() {
    return [...this.#coming.values()].reduce((sum, bytes) => sum + bytes, 0);
  }

  /** Fetch this piece before others. */
  want(index) {
    this.#wanted = index;
  }

  /** @throws ModelNotFound, FetchError, ChecksumMismatch, Truncated, StorageFull, or the signal's reason */
  async run() {
    const kept = this.#kept;
    try {
      const first = await this.#begin();
      this.#told.onReady();
      await checkRoom(kept.manifest.name, kept.manifest.bytes - kept.storedBytes);
      if (first?.answer.whole) await this.#readStream(first.answer);
      else if (first) await this.#readPieces(first);
      if (kept.unchecked) await this.#checkWhole();
    } catch (error) {
      throw await this.#explained(error);
    }
  }

  /** See that the manifest is that of the file on the server; {index, answer} of the first piece to fetch, or null. */
  async #begin() {
    const [kept, entry] = [this.#kept, this.#entry];
    if (kept.manifest && !fits(kept.manifest, entry)) await kept.clear();
    if (kept.manifest && entry.pieces) await kept.expect(entry.pieces);
    const index = kept.manifest ? kept.missing() : 0;
    if (index < 0) return null;
    const answer = await this.#patiently((url) => this.#ask(url, index));
    if (kept.manifest && this.#changed(answer)) {
      await kept.clear();
      answer.end();
      return this.#begin();
    }
    if (!kept.manifest) await this.#start(answer);
    return { index, answer };
  }

  #start({ size: bytes, etag }) {
    const { name, url, sha256, pieces: hashes, piece_bytes } = this.#entry;
    return this.#kept.save({ name, url, bytes, sha256, etag, piece_bytes, hashes, checked: false, last_used: seconds() });
  }

  /** @returns {Promise<import("./answer.js").Answer>} to a request for one piece */
  async #ask(url, index) {
    const { piece_bytes } = this.#kept.manifest ?? this.#entry;
    const { bytes } = this.#entry;
    const answer = await ask(url, index * piece_bytes, piece_bytes, bytes, this.#signal);
    if (!bytes || answer.size === bytes) return answer;
    answer.end();
    const error = failure("FetchError", `${url}: wanted a file of ${bytes} bytes, and the server has ${answer.size}`);
    throw answer.whole ? error : final(error); // the former may be a page that tells of some trouble
  }

  /** The server has another version of the file than the one of which pieces are here. */
  #changed({ url, size, etag }) {
    const { manifest } = this.#kept;
    return size !== manifest.bytes || (!manifest.sha256 && url === manifest.url && etag !== manifest.etag);
  }

  async #readPieces(first) {
    const failed = new AbortController();
    const work = async (index, answer) => {
      for (; index >= 0 && !failed.signal.aborted; index = this.#next()) {
        await this.#readPiece(index, answer);
        answer = null;
      }
    };
    const one = (...args) => work(...args).catch((error) => (failed.abort(), Promise.reject(error)));
    const all = [one(first.index, first.answer)]; // which takes its piece before the others look
    while (all.length < PARALLEL) all.push(one(this.#next(), null));
    await settled(all);
  }

  /** The piece to fetch next; -1: all are here or under way. */
  #next() {
    const after = this.#kept.missing(this.#wanted, this.#coming);
    return after < 0 ? this.#kept.missing(0, this.#coming) : after;
  }

  async #readPiece(index, answer) {
    this.#coming.set(index, 0);
    await this.#patiently(async (url) => {
      const body = answer ?? (await this.#ask(url, index));
      answer = null;
      try {
        if (this.#changed(body)) throw fatal(failure("FetchError", `${url}: the file changed: load the model again`));
        if (body.whole) throw failure("FetchError", `${url}: the server sent the whole file, wanted piece ${index}`);
        await this.#take(body, index);
      } finally {
        body.end();
      }
    }).finally(() => this.#coming.delete(index));
  }

  /** The whole file as it comes, for servers without Range; pieces that are here already are read over. */
  async #readStream(answer) {
    await this.#patiently(async (url) => {
      const body = answer ?? (await this.#ask(url, 0));
      answer = null;
      try {
        if (!body.whole || this.#changed(body)) throw failure("FetchError", `${url}: answers differently than before`);
        for (let index = 0; index < this.#kept.count; index++) await this.#take(body, index);
      } finally {
        body.end();
        this.#coming.clear();
      }
    });
  }

  async #take(body, index) {
    const kept = this.#kept;
    const bytes = await body.take(kept.sizeOf(index), (came) => {
      if (!kept.has(index)) this.#coming.set(index, came);
      this.#told.onBytes();
    });
    if (kept.has(index)) return;
    const hash = await kept.check(index, bytes);
    this.#told.onPiece(index, bytes); // the reader need not wait for the disk
    await kept.write(index, hash, bytes);
    this.#coming.delete(index);
    this.#told.onStored(index, hash);
  }

  /** Do what needs a server: again, with the next mirror, until it succeeds or there is no hope. */
  async #patiently(work) {
    let last;
    for (let round = 0; round < ROUNDS && this.#urls.size; round++) {
      if (round) await this.#pause(PAUSE_MS * 2 ** (round - 1));
      for (const url of [...this.#urls]) {
        try {
          return await work(url);
        } catch (error) {
          this.#signal.throwIfAborted();
          if (error.fatal || error.name === "QuotaExceededError") throw error;
          this.#urls.delete(url);
          if (!error.final) this.#urls.add(url); // behind the others
          last = error;
        }
      }
    }
    const way = "a part of what was imported is damaged: delete it and import it again";
    throw last ?? failure("ChecksumMismatch", `${this.#entry.name}: ${way}`);
  }

  /** @returns {Promise<void>} */
  #pause(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
    });
  }

  /** Where the pieces' hashes were not known, which of them is wrong cannot be told: none is kept. */
  async #checkWhole() {
    const kept = this.#kept;
    const { createHash } = await import("./hash.js"); // few need it
    const hash = await createHash();
    for (let i = 0; i < kept.count; i++) {
      const bytes = await kept.read(i);
      if (!bytes) throw failure("ChecksumMismatch", `${kept.manifest.name}: the disk damaged piece ${i}; load it again`);
      hash.update(bytes);
      this.#signal.throwIfAborted();
    }
    const got = hash.digest();
    if (got === kept.manifest.sha256) return kept.save({ checked: true });
    const { name, sha256 } = kept.manifest;
    await kept.clear();
    const message = `${name}: wanted SHA-256 ${sha256}, got ${got}; it was deleted, load it again or from elsewhere`;
    throw failure("ChecksumMismatch", message);
  }

  /** The error for the user, who should know that nothing is lost. */
  async #explained(error) {
    const { manifest } = this.#kept;
    if (this.#signal.aborted || !manifest?.url) return error;
    if (error.name === "QuotaExceededError") return filled(manifest.name, manifest.bytes - this.#kept.storedBytes);
    if (!["FetchError", "Truncated", "ModelNotFound", "ChecksumMismatch"].includes(error.name)) return error;
    const kept = `${this.#kept.storedBytes} of ${manifest.bytes} bytes are kept`;
    return failure(error.name, `${error.message}; ${kept}, the next load goes on from there`);
  }
}

/** This address will not do. */
const final = (error) => Object.assign(error, { final: true });

/** No address will do. */
const fatal = (error) => Object.assign(error, { fatal: true });

function fits(manifest, { bytes, sha256, pieces, piece_bytes }) {
  if (bytes && manifest.bytes !== bytes) return false;
  if (sha256 && manifest.sha256 !== sha256) return false;
  return !pieces || manifest.piece_bytes === piece_bytes;
}

/** Wait for all, so that nothing is written behind; then throw what the first of them threw. */
async function settled(promises) {
  await Promise.allSettled(promises);
  await Promise.all(promises);
}
