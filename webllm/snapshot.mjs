/**
 * node snapshot.mjs PYODIDE OUT WHEEL...: starts Python, imports webllm, and writes what browser_shell/python.js reads.
 *
 * PYODIDE is the folder of the npm package. OUT is gzipped: the length of a JSON object in 4 bytes, little-endian; the object,
 * {memory: bytes, files: [[path, bytes], ...]}, padded to words; the memory; the files, which the wheels brought.
 */

import { readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";

const HOME = "/home/pyodide";

const [folder, out, ...wheels] = process.argv.slice(2).map((path) => resolve(path));
const { loadPyodide } = await import(pathToFileURL(`${folder}/pyodide.mjs`));

const pyodide = await loadPyodide({ indexURL: folder, _makeSnapshot: true, env: { HOME, PYTHONDONTWRITEBYTECODE: "1" } });
for (const wheel of wheels) pyodide.unpackArchive(new Uint8Array(readFileSync(wheel)).buffer, "wheel");
const files = list(HOME).map((path) => [path, pyodide.FS.readFile(path)]);
pyodide.runPython(`
import gc
import webllm.browser_api, webllm.models.llama, webllm.models.qwen2, webllm.selftest, webllm.template_sandbox
gc.collect()
`);
const memory = pyodide.makeMemorySnapshot();

const index = JSON.stringify({ memory: memory.length, files: files.map(([path, { length }]) => [path, length]) });
const padded = Buffer.from(index + " ".repeat(-Buffer.byteLength(index) & 3)); // the memory is read as words
const length = Buffer.alloc(4);
length.writeUInt32LE(padded.length);
writeFileSync(out, gzipSync(Buffer.concat([length, padded, memory, ...files.map(([, bytes]) => bytes)]), { level: 9 }));

function list(path) {
  const { FS } = pyodide;
  if (!FS.isDir(FS.stat(path).mode)) return [path];
  return FS.readdir(path).flatMap((name) => (name.startsWith(".") ? [] : list(`${path}/${name}`)));
}
