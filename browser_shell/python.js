/**
 * Starts Python (Pyodide) from the parts of this folder that site.json lists. All are asked for at once, each is fetched
 * once, and those of others are compared with their hashes before they are used.
 */

import { loadPyodide } from "pyodide";
import { info } from "pyodide/pyodide-lock.json"; // esbuild leaves out its 357 packages

const failure = (name, message) => Object.assign(new Error(message), { name });
const here = (path) => new URL(path, import.meta.url).href;

const WASM = "pyodide/pyodide.asm.wasm";
const LIBRARY = "pyodide/python_stdlib.zip";
const SNAPSHOT = "python.snapshot.gz";
const LOCK = { info, packages: {} }; // there are none but the wheels

/**
 * @returns {Promise<{api: object, seconds: {fetch_s: number, pyodide_s: number, import_s: number}}>}  api: the module
 *   webllm.browser_api; from the start, until all parts are there; until Python runs; and what webllm then took
 * @throws FetchError  names the part that is missing or is not what site.json says
 */
export async function startPython() {
  const started = performance.now();
  const seconds = (since = started) => (performance.now() - since) / 1000;
  const { files } = await (await fetchPart("site.json")).json();
  const parts = new Map([WASM, LIBRARY, SNAPSHOT].map((path) => [here(path), fetchPart(path, files[path])]));
  const fetched = Promise.all(parts.values()).then(() => seconds());
  const snapshot = parts.get(here(SNAPSHOT)).then(readSnapshot);
  const pyodide = await boot(parts, snapshot);
  const pyodide_s = seconds();
  for (const [path, bytes] of (await snapshot).files) writeFile(pyodide.FS, path, bytes);
  pyodide.runPython("import random; random.seed()"); // or every visitor had the same random numbers
  const api = pyodide.pyimport("webllm.browser_api");
  return { api, seconds: { fetch_s: await fetched, pyodide_s, import_s: seconds() - pyodide_s } };
}

/** Pyodide waits for ever for a part that does not come, so all are waited for here too. */
async function boot(parts, snapshot) {
  const { fetch } = self;
  self.fetch = (url, options) => parts.get(String(url)) ?? fetch(url, options); // Pyodide's own, while it starts
  const memory = snapshot.then(({ memory }) => memory);
  const options = { indexURL: here("pyodide/"), lockFileContents: LOCK, _loadSnapshot: memory };
  try {
    const [pyodide] = await Promise.all([loadPyodide(options), ...parts.values(), snapshot]);
    return pyodide;
  } catch (error) {
    if (error.name === "FetchError") throw error;
    throw failure("FetchError", `Python did not start from ${options.indexURL} (${error.message}): build the site anew`);
  } finally {
    self.fetch = fetch;
  }
}

/** What webllm/snapshot.mjs wrote: {memory: Uint8Array, files: [[path, Uint8Array], ...]}. */
async function readSnapshot({ body }) {
  const bytes = await new Response(body.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  let at = 4;
  const take = (length) => new Uint8Array(bytes, (at += length) - length, length);
  const { memory, files } = JSON.parse(new TextDecoder().decode(take(new DataView(bytes).getUint32(0, true))));
  return { memory: take(memory), files: files.map(([path, length]) => [path, take(length)]) };
}

function writeFile(FS, path, bytes) {
  FS.mkdirTree(path.slice(0, path.lastIndexOf("/")));
  FS.writeFile(path, bytes);
}

async function fetchPart(path, integrity = "") {
  const url = here(path);
  const response = await fetch(url, { integrity }).catch(() => null);
  if (response?.ok) return response;
  throw failure(
    "FetchError",
    `${url}: a part of this page is missing on the server, or is not what site.json says: upload the whole site`,
  );
}
