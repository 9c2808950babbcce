/**
 * The worker that a page's model lives in: Python (Pyodide), the GPU and the model's bytes. As a SharedWorker it serves
 * all pages of a site that asked for the same model.
 *
 * Messages from a page: {id, method, args}. Answers: any number of {id, event}, then {id, value} or
 * {id, error: {name, message, details}}. Methods: load {model, options}, cancel {number: an id}, run_cell {page, ...}, and
 * the others of webllm/browser_api.py, to which most go as they are.
 * {method: "hello", args: {lock}} comes from a page that shares: see client.js.
 */

import { openDevice } from "./bridge.js";
import { host } from "./host.js";
import { locate } from "./locate.js";
import { startPython } from "./python.js";
import { adoptFile, openSource, prefetch } from "./sources.js";

const failure = (name, message, details = {}) => Object.assign(new Error(message), { name, details });

const LOAD = 0; // Python's number of the call that loads; those of pages come after it

let device = null; // promise of the bridge, until Python takes it
let python = bootPython(); // promise of what startPython gives; before anyone calls, as it takes longest
let model = null; // promise of what loading it told, while there is a model or it is being loaded
let reloaded = null; // the same of a reload that is under way
let unloaded = Promise.resolve(); // when the model that nobody used any more is gone
let nextNumber = LOAD + 1;
let base = self.location.href; // of relative URLs in Python
const pages = new Set();
const known = new Set(); // files that pages handed over, and addresses, as Python asks for them
const watchers = new Set(); // who is told how a load or reload goes on

/** One page. Each numbers its calls for itself; Python knows them by other numbers. */
class Page {
  #port;
  #numbers = new Map(); // the page's -> Python's, of calls that run or wait

  constructor(port) {
    this.#port = port;
    pages.add(this);
    port.onmessage = ({ data }) => this.#receive(data);
  }

  async #receive({ id, method, args }) {
    if (method === "hello") return navigator.locks.request(args.lock, () => this.#leave());
    const onEvent = (event) => this.#port.postMessage({ id, event });
    this.#numbers.set(id, nextNumber++);
    const answer = await this.#run(id, method, args, onEvent).then(
      (value) => ({ id, value }),
      ({ name, message, details }) => ({ id, error: { name, message, details } }),
    );
    this.#numbers.delete(id);
    if (pages.has(this) || method === "close") this.#port.postMessage(answer);
  }

  async #run(id, method, args, onEvent) {
    if (method === "load") return watch(onEvent, () => model ?? begin(args));
    if (method === "reload") return watch(onEvent, () => (reloaded ??= reload()));
    if (method === "close") return this.#leave();
    if (method === "cancel") args = { number: this.#numbers.get(args.number) ?? null };
    if (method === "interrupt") args = { numbers: [...this.#numbers.values()] };
    if (method === "run_cell") ({ page: base, ...args } = args);
    return call(this.#numbers.get(id), method, args, onEvent);
  }

  /** What this page asked for ends; the model goes with the last page. */
  async #leave() {
    if (!pages.delete(this)) return;
    if (!pages.size) return unload();
    for (const number of this.#numbers.values()) call(nextNumber++, "cancel", { number }).catch(() => {});
  }
}

/** Tell `onEvent` of the progress of what several pages may wait for. */
async function watch(onEvent, begin) {
  watchers.add(onEvent);
  try {
    return await begin();
  } finally {
    watchers.delete(onEvent);
  }
}

const tellAll = (event) => watchers.forEach((watcher) => watcher(event));

/** Load the first time; if that fails, the next page may try again. */
function begin(request) {
  const mine = load(request);
  mine.catch(() => model === mine && (model = null));
  return (model = mine);
}

/** Start all else that takes time at once: the adapter and the model's bytes. */
async function load({ model: wanted, options: { keep, ...options } }) {
  const started = performance.now();
  const seconds = () => (performance.now() - started) / 1000;
  await unloaded;
  const location = fetchEarly(wanted, keep);
  device = openDevice({ adapter: options.adapter, powerPreference: options.power_preference });
  // No adapter is told before Python is up.
  const [adapter_s, { seconds: startup }] = await Promise.all([device.then(seconds), (python ??= bootPython())]);
  const python_s = seconds();
  const info = await call(LOAD, "load", { model: location, options }, tellAll);
  return { ...info, startup: { ...startup, adapter_s, python_s, total_s: seconds() } };
}

async function reload() {
  try {
    return await call(LOAD, "reload", {}, tellAll);
  } finally {
    reloaded = null;
  }
}

function unload() {
  const left = model;
  model = null;
  unloaded = (async () => {
    await call(nextNumber++, "cancel", { number: LOAD });
    await left?.catch(() => {});
    await call(nextNumber++, "close");
  })().catch(() => {}); // Python may not have started at all
  return unloaded;
}

/** @returns {string} what Python opens: a URL, or the name of a picked or stored file */
function fetchEarly(model, keep) {
  const location = model.url ?? model.name;
  if (model instanceof File) adoptFile(location, model);
  else prefetch(model, tellAll, keep);
  known.add(location);
  return location;
}

/** Run a function of webllm/browser_api.py; JSON both ways. */
async function call(number, method, args = {}, onEvent = () => {}) {
  const { api } = await (python ??= bootPython());
  const tell = (json) => onEvent(JSON.parse(json));
  const { value, error } = JSON.parse(await api.call(number, method, JSON.stringify(args), tell));
  if (error) throw failure(error.type, error.message, error.details);
  return value;
}

/** After a failure the next call tries again. */
function bootPython() {
  const started = startPython();
  started.catch(() => (python = null)); // told to whoever calls
  return started;
}

/** host.js, and a device that was opened before Python was up. */
self.webllmHost = {
  ...host,

  openDevice(adapter, powerPreference) {
    const opened = device ?? openDevice({ adapter, powerPreference });
    device = null;
    return opened;
  },

  /** Cells ask for short names and relative URLs too. */
  openSource: async (location, onProgress, keep) =>
    openSource(known.has(location) ? location : await locate(location, base), onProgress, keep),
};

if ("SharedWorkerGlobalScope" in self) self.onconnect = ({ ports: [port] }) => new Page(port);
else new Page(self);
