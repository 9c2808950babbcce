/**
 * From navigation to the first token: what every part of it took, over several navigations of one page.
 * All times are seconds since the navigation began (performance.timeOrigin), or of a part.
 */

import { load } from "./webllm.js";

const KEY = "webllm load times"; // in the session's storage, from one navigation to the next
const QUESTION = [{ role: "user", content: "Hello" }];

const now = () => performance.now() / 1000;

/**
 * Load a model and ask for one token; then navigate to the same page again, as often as `repeats` in the query says.
 * The first navigation finds in the browser's cache what was there before; the others find what the first one left.
 * @param {URLSearchParams} query  load, repeats; `run` is this page's own
 * @returns {Promise<object>} {model, adapter, versions, runs: [{s: {part: seconds}}]}; of the last one
 */
export async function measureLoad(query) {
  const run = Number(query.get("run") ?? 1);
  const { info, ...measured } = await once(query.get("load"));
  const runs = [...(run > 1 ? JSON.parse(sessionStorage.getItem(KEY)) : []), measured];
  if (run >= Number(query.get("repeats") ?? 2)) {
    const { model, adapter, versions } = info;
    return { model, adapter, versions, runs };
  }
  sessionStorage.setItem(KEY, JSON.stringify(runs));
  query.set("run", run + 1);
  location.search = query;
  return new Promise(() => {}); // this page is left
}

async function once(model) {
  const page = now();
  const llm = await load(model);
  const loaded = now();
  await llm.chat.completions.create({ messages: QUESTION, max_tokens: 1, temperature: 0 });
  const first = now();
  const { load: parts } = await llm.stats();
  const html = performance.getEntriesByType("navigation")[0].responseEnd / 1000;
  const { fetch_s, pyodide_s, import_s, adapter_s } = llm.info.startup;
  const python = { fetch: fetch_s, pyodide: pyodide_s, import: import_s, adapter: adapter_s };
  const s = { html, page, ...python, ...parts, load: llm.info.load_s };
  await llm.close();
  return { info: llm.info, s: { ...s, loaded, first_token: first - loaded, total: first } };
}
