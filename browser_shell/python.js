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
 * @returns {Promise<{api: object, seconds: {pyodide_s: number, import_s: number}}>}  api: the module webllm.browser_api
 * @throws FetchError  names the part that is missing or is not what site.json says
 */
export async function startPython() {
  const started = performance.now();
  const { wheels, files } = await (await fetchPart("site.json")).json();
  const part = (path) => fetchPart(path, files[path]);
  const handed = new Map([WASM, LIBRARY].map((path) => [here(path), part(path)]));
  const archives = wheels.map(async (name) => (await part(`wheels/${name}`)).arrayBuffer());
  const pyodide = await boot(handed, part(SNAPSHOT).then(unzip), archives);
  const booted = performance.now();
  for (const archive of archives) pyodide.unpackArchive(await archive, "wheel");
  const api = pyodide.pyimport("webllm.browser_api");
  return { api, seconds: { pyodide_s: (booted - started) / 1000, import_s: (performance.now() - booted) / 1000 } };
}

/** Pyodide waits for ever for a part that does not come, so all are waited for here too. */
async function boot(handed, snapshot, archives) {
  const { fetch } = self;
  self.fetch = (url, options) => handed.get(String(url)) ?? fetch(url, options); // Pyodide's own, while it starts
  const options = { indexURL: here("pyodide/"), lockFileContents: LOCK, _loadSnapshot: snapshot };
  try {
    const [pyodide] = await Promise.all([loadPyodide(options), ...handed.values(), snapshot, ...archives]);
    return pyodide;
  } catch (error) {
    if (error.name === "FetchError") throw error;
    throw failure("FetchError", `Python did not start from ${options.indexURL} (${error.message}): build the site anew`);
  } finally {
    self.fetch = fetch;
  }
}

async function unzip(response) {
  return new Response(response.body.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
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
