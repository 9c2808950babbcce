/** The models that stay in this browser, for all pages of the origin; see cache.js for what each function does. */

import { openFolders } from "./folder.js";
import { Kept, PIECE_BYTES, failure, seconds, sha256 } from "./kept.js";

const MB = 1e6;
const NOW = { ifAvailable: true }; // without waiting: the work gets null for a lock that another page has

let opening = null;

/** @returns {Promise<import("./folder.js").Folders | null>} null where this browser keeps nothing */
export const folders = () => (opening ??= openFolders());

/** Run `work` while no other page writes this model. */
export const locked = (key, work, options = {}) => navigator.locks.request(`webllm ${key}`, options, work);

/**
 * The key of a file: SHA-256 of its content where that is known, else of its address.
 * @param {{url: string, sha256?: string | null}} file
 */
export async function keyOf({ url, sha256: known }) {
  return known ?? (await sha256(new TextEncoder().encode(url)));
}

/** All that is here, the last used first. */
async function all() {
  const here = await folders();
  const kept = ((await here?.list()) ?? []).map((key) => new Kept(here, key));
  await Promise.all(kept.map((each) => each.refresh()));
  for (const { key, manifest } of kept) if (!manifest) await locked(key, (lock) => lock && here.remove(key), NOW);
  return kept.filter(({ manifest }) => manifest).sort((a, b) => b.manifest.last_used - a.manifest.last_used);
}

/** What is known by this name, key, address or content; null if nothing is. Complete ones come first. */
export async function find(name) {
  const fits = ({ key, manifest }) => [key, manifest.name, manifest.url, manifest.sha256].includes(name);
  const found = (await all()).filter(fits);
  return found.find(({ complete }) => complete) ?? found[0] ?? null;
}

async function get(name) {
  const kept = await find(name);
  if (kept) return kept;
  const known = (await all()).map(({ manifest }) => manifest.name).join(", ") || "none";
  throw failure("ModelNotFound", `no model "${name}" is stored here; there are: ${known}`);
}

export async function list() {
  return (await all()).map((kept) => kept.describe());
}

export async function verify(name, onProgress = (_) => {}) {
  const kept = await get(name);
  const { bytes: total } = kept.manifest;
  let loaded = 0;
  let right = kept.complete;
  for (let i = 0; i < kept.count; i++) {
    if (kept.has(i)) right = (await kept.read(i)) !== null && right;
    loaded += kept.sizeOf(i);
    onProgress({ phase: "verify", loaded, total });
  }
  return right;
}

export async function remove(name) {
  const kept = await find(name);
  if (!kept) return false;
  return locked(kept.key, (lock) => (lock ? clear(kept) : refuse(kept)), NOW);
}

async function clear(kept) {
  await kept.clear();
  return true;
}

function refuse({ manifest }) {
  throw failure("RequestError", `${manifest.name} is being fetched by a page: close that first, or cancel its load`);
}

export async function exportFile(name) {
  const kept = await get(name);
  const file = kept.complete && (await kept.file());
  if (file) return file;
  const { bytes } = kept.manifest;
  throw failure("ModelNotFound", `${name}: ${kept.storedBytes} of ${bytes} bytes are here: load it to fetch the rest`);
}

export async function importFile(file, name = file.name?.replace(/\.gguf$/i, ""), onProgress = (_) => {}) {
  if (!name || name.length > 200 || /[/\\:]/.test(name)) {
    throw failure("RequestError", `a model's name has 1 to 200 characters, and no / \\ or : among them, got "${name}"`);
  }
  if (await find(name)) throw failure("RequestError", `"${name}" is stored here already: delete it first, or choose a name`);
  if (!file.size) throw failure("Truncated", `${name}: the file is empty`);
  const here = await folders();
  if (!here) throw failure("StorageFull", `${name}: this browser keeps no files for this page, as in a private window`);
  const kept = new Kept(here, await keyOf({ url: `import:${name}` }));
  return locked(kept.key, () => copyInto(kept, file, name, onProgress));
}

/** A copy that fails leaves nothing. */
async function copyInto(kept, file, name, onProgress) {
  await checkRoom(name, file.size);
  const nothingKnown = { url: null, sha256: null, etag: null, hashes: null, checked: false };
  try {
    await kept.clear();
    await kept.save({ name, bytes: file.size, piece_bytes: PIECE_BYTES, last_used: seconds(), ...nothingKnown });
    for (let i = 0; i < kept.count; i++) {
      const from = i * PIECE_BYTES;
      const bytes = new Uint8Array(await file.slice(from, from + kept.sizeOf(i)).arrayBuffer());
      await kept.write(i, await kept.check(i, bytes), bytes);
      onProgress({ phase: "import", loaded: from + kept.sizeOf(i), total: file.size });
    }
  } catch (error) {
    await kept.clear();
    throw error.name === "QuotaExceededError" ? await filled(name, file.size) : error;
  }
  return kept.describe();
}

/** {used, free} in bytes, as far as the browser tells. */
export async function space() {
  const { usage, quota } = (await navigator.storage?.estimate?.()) ?? {};
  return quota === undefined ? null : { used: usage, free: Math.max(0, quota - usage) };
}

/** Throw StorageFull if so many more bytes have no room: it names what could be deleted. */
export async function checkRoom(name, bytes) {
  const free = await (await folders()).room(bytes);
  if (free < bytes) throw await full(name, bytes, free);
}

/** The error of a disk that has no room for `bytes` more. */
export async function full(name, bytes, free) {
  const megabytes = (count) => `${(count / MB).toFixed(count < 10 * MB ? 1 : 0)} MB`;
  const others = (await all()).filter(({ manifest }) => manifest.name !== name);
  const stored = others.map((kept) => `${kept.manifest.name} (${megabytes(kept.storedBytes)})`).join(", ");
  const way = stored ? `stored models that could be deleted: ${stored}` : "free some space on the disk";
  const needs = `${name} needs ${megabytes(bytes)} (${bytes} bytes) more, and the browser has`;
  return failure("StorageFull", `${needs} ${megabytes(free)} (${free} bytes) free for this page; ${way}`);
}

/** The same, where writing failed already. */
export async function filled(name, bytes) {
  return full(name, bytes, await (await folders()).room(bytes));
}
