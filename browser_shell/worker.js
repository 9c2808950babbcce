/**
 * The worker that a page's model lives in: Python (Pyodide), the GPU and the model's bytes.
 *
 * Messages from the page: {id, method, args}. Answers: any number of {id, event}, then {id, value} or
 * {id, error: {name, message, details}}. Methods: load {model, options}, and those of webllm/browser_api.py, to which they
 * go as they are. load and what needs no model start Python.
 */

import { Tokenizer } from "@huggingface/tokenizers";
import { loadPyodide } from "pyodide";

import { openDevice } from "./bridge.js";
import * as cache from "./cache.js";
import { adoptFile, openSource, prefetch } from "./sources.js";

const failure = (name, message, details = {}) => Object.assign(new Error(message), { name, details });

const PYODIDE_PARTS = ["pyodide.asm.mjs", "pyodide.asm.wasm", "pyodide-lock.json", "python_stdlib.zip"];

const NEED_NO_MODEL = ["bench", "doctor", "kernels", "try_kernel"];

let device = null; // promise of the bridge, until Python takes it
let python = null; // promise of webllm.browser_api
const startup = {}; // seconds that parts of starting Python took

self.onmessage = async ({ data: { id, method, args } }) => {
  const onEvent = (json) => postMessage({ id, event: JSON.parse(json) });
  try {
    if (NEED_NO_MODEL.includes(method)) python ??= startPython();
    const run = method === "load" ? load : call;
    postMessage({ id, value: await run({ id, method, args }, onEvent) });
  } catch ({ name, message, details }) {
    postMessage({ id, error: { name, message, details } });
  }
};

/** Start everything that takes time at once: the adapter, the model's bytes, Python. */
async function load({ id, method, args: { model, options: given } }, onEvent) {
  const { keep, ...options } = given;
  const started = performance.now();
  const seconds = () => (performance.now() - started) / 1000;
  const location = begin(model, keep, (event) => postMessage({ id, event }));
  device = openDevice({ adapter: options.adapter, powerPreference: options.power_preference });
  python ??= startPython();
  await Promise.all([device, python]); // no adapter is told before Python is up
  const python_s = seconds();
  const info = await call({ id, method, args: { model: location, options } }, onEvent);
  return { ...info, startup: { ...startup, python_s, total_s: seconds() } };
}

/** @returns {string} what Python opens: a URL, or the name of a picked or stored file */
function begin(model, keep, onProgress) {
  if (model instanceof File) adoptFile(model.name, model);
  else prefetch(model, onProgress, keep);
  return model.url ?? model.name;
}

/** Run a function of webllm/browser_api.py; JSON both ways. */
async function call({ id, method, args }, onEvent) {
  const api = await python;
  if (!api) throw failure("Closed", `${method}: no model is loaded`);
  const { value, error } = JSON.parse(await api.call(id, method, JSON.stringify(args ?? {}), onEvent));
  if (error) throw failure(error.type, error.message, error.details);
  return value;
}

async function startPython() {
  const started = performance.now();
  const [pyodide, wheels] = await Promise.all([bootPyodide(), fetchWheels(), ...checkPyodide()]);
  const booted = performance.now();
  for (const wheel of wheels) pyodide.unpackArchive(wheel, "wheel");
  const api = pyodide.pyimport("webllm.browser_api");
  startup.pyodide_s = (booted - started) / 1000;
  startup.import_s = (performance.now() - booted) / 1000;
  return api;
}

async function bootPyodide() {
  const indexURL = new URL("./pyodide/", import.meta.url).href;
  try {
    return await loadPyodide({ indexURL });
  } catch (error) {
    throw failure("FetchError", `Python did not start from ${indexURL} (${error.message}): build the site anew`);
  }
}

/** Pyodide waits for ever for a part that is missing. */
function checkPyodide() {
  return PYODIDE_PARTS.map((name) => fetchPart(`pyodide/${name}`, { method: "HEAD" }));
}

async function fetchWheels() {
  const { wheels } = await (await fetchPart("site.json")).json();
  return Promise.all(wheels.map(async (name) => (await fetchPart(`wheels/${name}`)).arrayBuffer()));
}

async function fetchPart(path, options = {}) {
  const url = new URL(path, import.meta.url).href;
  const response = await fetch(url, options).catch(() => null);
  if (response?.ok) return response;
  const what = response ? `HTTP ${response.status}` : "no answer";
  throw failure("FetchError", `${url}: a part of this page is missing on the server (${what}): upload the whole site`);
}

/** What webllm/device/browser.py and webllm/host/browser.py find as `js.webllmHost`. */
self.webllmHost = {
  openDevice(adapter, powerPreference) {
    const opened = device ?? openDevice({ adapter, powerPreference });
    device = null;
    return opened;
  },

  openSource,
  cache,

  /** A function from text to ids, without special tokens. */
  createEncoder(tokenizerJson) {
    const tokenizer = new Tokenizer(JSON.parse(tokenizerJson), {});
    return (text) => Int32Array.from(tokenizer.encode(text, { add_special_tokens: false }).ids);
  },
};
