/**
 * One model file in this browser's store, whole or in part: a folder with a manifest and one file a piece, which has the
 * piece's SHA-256 in its name. So a piece is there as a whole or not at all, and what is read is known to be what came.
 *
 * @typedef {object} Manifest
 * @property {string} name
 * @property {string | null} url  where it came from; null: imported
 * @property {number} bytes
 * @property {string | null} sha256  of the whole file, where it was known beforehand
 * @property {string | null} etag  what the server at `url` called this version
 * @property {number} piece_bytes
 * @property {string[] | null} hashes  SHA-256 of each piece, where they were known beforehand
 * @property {boolean} checked  `sha256` was found right
 * @property {number} last_used  seconds since 1970
 */

export const PIECE_BYTES = 8 << 20;

const MANIFEST = "manifest.json";
const PIECE = /^(\d+)-([0-9a-f]{64})$/;

export const failure = (name, message) => Object.assign(new Error(message), { name });
export const seconds = () => Math.floor(Date.now() / 1000);

/** @param {BufferSource} bytes */
export async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export class Kept {
  #folders;
  #hashes = new Map(); // of the pieces that are here

  /** @param {import("./folder.js").Folders} folders */
  constructor(folders, key) {
    this.#folders = folders;
    this.key = key;
    /** @type {Manifest | null} */
    this.manifest = null;
  }

  /** See what is here now; other pages write too. */
  async refresh() {
    const text = await (await this.#folders.read(this.key, MANIFEST))?.text();
    this.manifest = parse(text);
    this.#hashes.clear();
    if (!this.manifest) return;
    for (const { name, size } of await this.#folders.files(this.key)) {
      const [, index, hash] = PIECE.exec(name) ?? [];
      if (hash && size === this.sizeOf(Number(index))) this.note(Number(index), hash);
    }
  }

  get count() {
    return Math.ceil(this.manifest.bytes / this.manifest.piece_bytes);
  }

  get whole() {
    return this.#hashes.size === this.count;
  }

  /** The hash of the whole file is known and those of its pieces are not: only the whole can be checked. */
  get unchecked() {
    const { sha256, hashes, checked } = this.manifest ?? {};
    return Boolean(sha256) && !hashes && !checked;
  }

  get complete() {
    return this.manifest !== null && this.whole && !this.unchecked;
  }

  get storedBytes() {
    return [...this.#hashes.keys()].reduce((sum, index) => sum + this.sizeOf(index), 0);
  }

  sizeOf(index) {
    const { bytes, piece_bytes } = this.manifest;
    return Math.min(piece_bytes, bytes - index * piece_bytes);
  }

  has(index) {
    return this.#hashes.has(index);
  }

  /** Piece `index` is here: this page or another has written it. */
  note(index, hash) {
    this.#hashes.set(index, hash);
  }

  /** The first piece from `from` on that is not here and that `but` does not hold; -1: none. */
  missing(from = 0, but = new Set()) {
    for (let i = from; i < this.count; i++) if (!this.has(i) && !but.has(i)) return i;
    return -1;
  }

  /** @returns {Promise<Uint8Array | null>} a piece as it came; null if it is not here, or damaged: then it is dropped */
  async read(index) {
    const hash = this.#hashes.get(index);
    const blob = hash && (await this.#folders.read(this.key, `${index}-${hash}`));
    const bytes = blob && new Uint8Array(await blob.arrayBuffer());
    if (bytes && (await sha256(bytes)) === hash) return bytes;
    await this.drop(index);
    return null;
  }

  /**
   * @returns {Promise<string>} the hash of what came as a piece
   * @throws ChecksumMismatch if another is known
   */
  async check(index, bytes) {
    const { name, hashes } = this.manifest;
    const hash = await sha256(bytes);
    if (hashes && hash !== hashes[index]) {
      const wanted = `wanted SHA-256 ${hashes[index]}, got ${hash}`;
      throw failure("ChecksumMismatch", `${name}: piece ${index} of ${this.count} came damaged: ${wanted}`);
    }
    return hash;
  }

  /** Write a piece that was checked. Throws what a full disk throws. */
  async write(index, hash, bytes) {
    await this.#folders.write(this.key, `${index}-${hash}`, bytes);
    this.note(index, hash);
  }

  /** These should be the hashes of the pieces; what is here and has another is dropped. */
  async expect(hashes) {
    if (!this.manifest.hashes) await this.save({ hashes });
    for (const [index, hash] of [...this.#hashes]) if (hash !== hashes[index]) await this.drop(index);
  }

  async drop(index) {
    const hash = this.#hashes.get(index);
    this.#hashes.delete(index);
    if (hash) await this.#folders.remove(this.key, `${index}-${hash}`);
  }

  /** Change some of what the manifest says, or begin it. */
  async save(changes) {
    this.manifest = { ...this.manifest, ...changes };
    await this.#folders.write(this.key, MANIFEST, JSON.stringify(this.manifest));
  }

  async clear() {
    this.manifest = null;
    this.#hashes.clear();
    await this.#folders.remove(this.key);
  }

  /** The whole as one file, of which nothing is read yet; null if a piece is not here. */
  async file() {
    const names = Array.from({ length: this.count }, (_, i) => `${i}-${this.#hashes.get(i)}`);
    const blobs = await Promise.all(names.map((name) => this.#folders.read(this.key, name)));
    if (blobs.includes(null)) return null;
    const name = this.manifest.name.replace(/(\.gguf)?$/i, ".gguf");
    return new File(blobs, name, { type: "application/octet-stream" });
  }

  /** @returns {import("./cache.js").StoredModel} */
  describe() {
    const { name, url, bytes, sha256, last_used } = this.manifest;
    const stored_bytes = this.storedBytes;
    return { name, key: this.key, url, bytes, stored_bytes, complete: this.complete, sha256, last_used };
  }
}

/** A manifest out of its text; null for one whose writing was broken off. */
function parse(text) {
  try {
    const manifest = JSON.parse(text);
    return manifest.bytes > 0 && manifest.piece_bytes > 0 ? manifest : null;
  } catch {
    return null;
  }
}
