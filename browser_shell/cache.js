/**
 * `window.webllm.cache`: the models that stay in this browser, for all pages of this origin. Python has the same names
 * in `webllm.cache`.
 *
 * @typedef {object} StoredModel
 * @property {string} name  what `load` and the functions here know it by
 * @property {string} key  SHA-256 of the content where it was known beforehand, else of the URL, in hex
 * @property {string | null} url  where it came from; null: imported
 * @property {number} bytes  of the whole file
 * @property {number} stored_bytes  how much of it is here
 * @property {boolean} complete  all of it is here and its hashes are right
 * @property {string | null} sha256  of the whole file, in hex, where it is known
 * @property {number} last_used  seconds since 1970
 *
 * A name may also be a key or a URL. Errors have the `name` of a class of webllm/errors.py.
 */

import * as store from "./store.js";

/**
 * All models that are here, whole or in part; the last used first.
 *
 *     for (const { name, bytes } of await webllm.cache.list()) console.log(name, bytes);
 *
 * @returns {Promise<StoredModel[]>}
 */
export const list = () => store.list();

/**
 * Read a model and compare every piece with its hash. What is damaged is dropped, and fetched again by the next load.
 *
 * @param {string} name
 * @param {(progress: {phase: "verify", loaded: number, total: number}) => void} [onProgress]
 * @returns {Promise<boolean>} whether all of it is here and right
 * @throws ModelNotFound
 */
export const verify = (name, onProgress) => store.verify(name, onProgress);

/**
 * Delete a model, or what there is of it.
 *
 * @param {string} name
 * @returns {Promise<boolean>} whether there was any
 * @throws RequestError while a page fetches it
 */
const remove = (name) => store.remove(name);

/**
 * A model as one file, which the browser reads from its disk only as it is used.
 *
 *     link.href = URL.createObjectURL(await webllm.cache.export("smollm2-135m-instruct"));
 *
 * @param {string} name
 * @returns {Promise<File>}
 * @throws ModelNotFound, also where a part is missing
 */
const exportFile = (name) => store.exportFile(name);

/**
 * Keep a file of the user's under `name`, by which `load` then finds it. Nothing is uploaded.
 *
 * @param {Blob} file
 * @param {string} [name]  default: the file's, without .gguf
 * @param {(progress: {phase: "import", loaded: number, total: number}) => void} [onProgress]
 * @returns {Promise<StoredModel>}
 * @throws StorageFull, RequestError
 */
const importFile = (file, name, onProgress) => store.importFile(file, name, onProgress);

/** @returns {Promise<{used: number, free: number} | null>} bytes of this origin; null where the browser does not tell */
export const space = () => store.space();

/** Ask the browser not to delete this origin's models when the disk fills up; whether it will not. Only pages may ask. */
export const persist = async () => (await navigator.storage?.persist?.().catch(() => false)) ?? false;

// `import_` is Python's name for it; Pyodide drops the underscore.
export { remove as delete, exportFile as export, importFile as import, importFile as import_ };
