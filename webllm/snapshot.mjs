/**
 * node snapshot.mjs PYODIDE OUT WHEEL...: writes the memory of a Python that has imported webllm, gzipped.
 *
 * PYODIDE is the folder of the npm package. Whoever starts Python from the snapshot puts the same wheels where they were:
 * files are no part of it.
 */

import { readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";

const [folder, out, ...wheels] = process.argv.slice(2).map((path) => resolve(path));
const { loadPyodide } = await import(pathToFileURL(`${folder}/pyodide.mjs`));

const pyodide = await loadPyodide({ indexURL: folder, _makeSnapshot: true });
for (const wheel of wheels) pyodide.unpackArchive(new Uint8Array(readFileSync(wheel)).buffer, "wheel");
pyodide.pyimport("webllm.browser_api").destroy();
writeFileSync(out, gzipSync(pyodide.makeMemorySnapshot(), { level: 9 }));
