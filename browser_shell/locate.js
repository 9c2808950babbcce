/** Where a model's file is: names of site.json, and URLs. Used by pages and by the worker. */

const failure = (name, message) => Object.assign(new Error(message), { name });

/**
 * What site.json lists.
 * @returns {Promise<Record<string, {url: string, bytes: number}>>}
 */
export async function listModels() {
  const url = new URL("site.json", import.meta.url);
  const response = await fetch(url).catch(() => null);
  if (response?.ok) return (await response.json()).models;
  throw failure("FetchError", `${url}: a part of this page is missing on the server: upload the whole site`);
}

/**
 * @template T
 * @param {string | T} model  a name of site.json, a URL, or anything else, which is returned as it is
 * @param {string} base  what a relative URL starts from
 * @returns {Promise<string | T>} an absolute URL
 * @throws ModelNotFound, FetchError
 */
export async function locate(model, base) {
  if (typeof model !== "string") return model;
  if (/[/:]|\.gguf$/.test(model)) return new URL(model, base).href;
  const models = await listModels();
  if (models[model]) return new URL(models[model].url, import.meta.url).href;
  const known = Object.keys(models).join(", ") || "none";
  throw failure("ModelNotFound", `no model "${model}" here; there are: ${known}. Or give the URL of a .gguf file`);
}
