/** Where a model's file is: names of site.json and of the browser's store, and URLs. Used by pages and by the worker. */

import * as cache from "./cache.js";

const failure = (name, message) => Object.assign(new Error(message), { name });

/** @typedef {import("./stored_source.js").Entry} Entry */

/**
 * What site.json lists.
 * @returns {Promise<Record<string, Entry>>}
 */
export async function listModels() {
  const url = new URL("site.json", import.meta.url);
  const response = await fetch(url).catch(() => null);
  if (response?.ok) return (await response.json()).models;
  throw failure("FetchError", `${url}: a part of this page is missing on the server: upload the whole site`);
}

/**
 * @template {Blob} T
 * @param {string | T | Partial<Entry>} model  a name, a URL, a file, which is returned as it is, or an entry
 * @param {string} base  what a relative URL starts from
 * @returns {Promise<T | Partial<Entry>>} an entry with absolute URLs, or of a stored model its name alone
 * @throws ModelNotFound, FetchError
 */
export async function locate(model, base) {
  if (model instanceof Blob) return model;
  if (typeof model === "object") return resolved(model, base);
  if (/[/:]|\.gguf$/.test(model)) return resolved({ url: model }, base);
  const models = await listModels();
  if (Object.hasOwn(models, model)) return resolved({ name: model, ...models[model] }, import.meta.url);
  const stored = await cache.list();
  if (stored.some(({ name }) => name === model)) return { name: model };
  const known = [...Object.keys(models), ...stored.map(({ name }) => name)].join(", ") || "none";
  throw failure("ModelNotFound", `no model "${model}" here; there are: ${known}. Or give the URL of a .gguf file`);
}

/** @param {Partial<Entry>} entry */
function resolved({ url, mirrors = [], ...entry }, base) {
  return { ...entry, url: new URL(url, base).href, mirrors: mirrors.map((mirror) => new URL(mirror, base).href) };
}
