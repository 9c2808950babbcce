/**
 * From navigation to the first token: what every part of it took, over several navigations of one page.
 * All times are seconds since the navigation began (performance.timeOrigin), or of a part.
 */

import { longestTask } from "./main_thread.js";
import { GrowingText } from "./messages.js";
import { load } from "./webllm.js";

const KEY = "webllm load times"; // in the session's storage, from one navigation to the next
const QUESTION = [{ role: "user", content: "Hello" }];

const now = () => performance.now() / 1000;

/**
 * Load a model and ask for one token, or for `tokens`, which are shown as they come; then navigate to the same page again,
 * as often as `repeats` in the query says.
 * The first navigation finds in the browser's cache what was there before; the others find what the first one left.
 * @param {URLSearchParams} query  load, repeats, tokens; `run` is this page's own
 * @returns {Promise<object>} {model, adapter, versions, runs: [{s: {part: seconds}, longest_task_ms}]}; model to versions
 *   of the last run. longest_task_ms: of the page's own thread, while it loads and while the answer comes
 */
export async function measureLoad(query) {
  const run = Number(query.get("run") ?? 1);
  const { info, ...measured } = await once(query.get("load"), Number(query.get("tokens") ?? 1));
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

async function once(model, tokens) {
  const page = now();
  const [{ llm, loaded, first }, longest_task_ms] = await longestTask(() => loadAndAsk(model, tokens));
  const { load: parts } = await llm.stats();
  const html = performance.getEntriesByType("navigation")[0].responseEnd / 1000;
  const { fetch_s, pyodide_s, import_s, adapter_s } = llm.info.startup;
  const python = { fetch: fetch_s, pyodide: pyodide_s, import: import_s, adapter: adapter_s };
  const s = { html, page, ...python, ...parts, load: llm.info.load_s };
  await llm.close();
  return { info: llm.info, longest_task_ms, s: { ...s, loaded, first_token: first - loaded, total: first } };
}

async function loadAndAsk(model, tokens) {
  const llm = await load(model);
  const loaded = now();
  const view = new GrowingText(document.body.appendChild(document.createElement("div")));
  let first = 0;
  const request = { messages: QUESTION, max_tokens: tokens, temperature: 0, stream: true };
  for await (const { choices: [{ delta }], usage } of llm.chat.completions.create(request)) {
    if (delta.content || usage) first ||= now();
    view.append(delta.content ?? "");
  }
  return { llm, loaded, first };
}
