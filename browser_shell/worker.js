/**
 * The worker that a page's model lives in: Python (Pyodide), the GPU and the model's bytes.
 *
 * Messages from the page: {id, method, args}. Answers: any number of {id, event}, then {id, value} or
 * {id, error: {name, message, details}}. Methods: load {model, options}, reload, generate, chat, interrupt, cancel, bench,
 * doctor, stats, close; all but load go to webllm/browser_api.py as they are.
 */

import { openDevice } from "./bridge.js";
import { host } from "./host.js";
import { startPython } from "./python.js";
import { adoptFile, prefetch } from "./sources.js";

const failure = (name, message, details = {}) => Object.assign(new Error(message), { name, details });

let device = null; // promise of the bridge, until Python takes it
const python = startPython(); // before anyone calls, as it takes longest
python.catch(() => {}); // told to whoever calls

self.onmessage = async ({ data: { id, method, args } }) => {
  const onEvent = (json) => postMessage({ id, event: JSON.parse(json) });
  try {
    const run = method === "load" ? load : call;
    postMessage({ id, value: await run({ id, method, args }, onEvent) });
  } catch ({ name, message, details }) {
    postMessage({ id, error: { name, message, details } });
  }
};

/** Start all else that takes time at once: the adapter and the model's bytes. */
async function load({ id, method, args: { model, options } }, onEvent) {
  const started = performance.now();
  const seconds = () => (performance.now() - started) / 1000;
  const location = begin(model);
  device = openDevice({ adapter: options.adapter, powerPreference: options.power_preference });
  // No adapter is told before Python is up.
  const [adapter_s, { seconds: startup }] = await Promise.all([device.then(seconds), python]);
  const python_s = seconds();
  const info = await call({ id, method, args: { model: location, options } }, onEvent);
  return { ...info, startup: { ...startup, adapter_s, python_s, total_s: seconds() } };
}

/** @returns {string} what Python opens: a URL, or the picked file's name */
function begin(model) {
  if (model instanceof File) adoptFile(model.name, model);
  else prefetch(model);
  return model.name ?? model;
}

/** Run a function of webllm/browser_api.py; JSON both ways. */
async function call({ id, method, args }, onEvent) {
  const { api } = await python;
  const { value, error } = JSON.parse(await api.call(id, method, JSON.stringify(args ?? {}), onEvent));
  if (error) throw failure(error.type, error.message, error.details);
  return value;
}

/** host.js, and a device that was opened before Python was up. */
self.webllmHost = {
  ...host,

  openDevice(adapter, powerPreference) {
    const opened = device ?? openDevice({ adapter, powerPreference });
    device = null;
    return opened;
  },
};
