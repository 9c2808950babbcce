/** `npm run build`: bundles the page, browser_shell/, into build/page/. */

import { copyFileSync, readdirSync } from "node:fs";
import { build } from "esbuild";

const FROM = "browser_shell";
const TO = "build/page";
const ENTRIES = [
  ...["webllm.js", "webllm-compat.js", "worker.js", "host.js", "sw.js"],
  ...["chat.js", "bench.js", "doctor.js", "playground.js", "compat-page.js", "compat-worker.js"],
];
const COPIED = /\.(html|svg|txt|json)$/;

const files = readdirSync(FROM);
const styles = files.filter((name) => name.endsWith(".css"));

await build({
  entryPoints: [...ENTRIES, ...styles].map((name) => `${FROM}/${name}`),
  outdir: TO,
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  sourcemap: true,
  // These have state, so there is one of each, however many of a page's modules import it.
  // Pyodide imports the others in Node.js only.
  external: ["./webllm.js", "./webllm-compat.js", "node:*", "ws"],
  logLevel: "warning",
});
for (const name of files.filter((name) => COPIED.test(name))) copyFileSync(`${FROM}/${name}`, `${TO}/${name}`);
