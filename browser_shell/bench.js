/**
 * bench.html?config=URL[&quant=q4&kv=f16&exact=1&prompt=128,1024&decode=128&at=128&repeats=5]: measures and shows one
 * JSON object a line. config is the URL of a config.json; several, separated by commas, are measured one after the other.
 *
 * bench.html?load=MODEL[&repeats=2&tokens=1]: what loading takes, from navigation to the first token; see load_time.js.
 *
 * Both tell the longest task of the page's own thread meanwhile, `longest_task_ms`.
 */

import { measureLoad } from "./load_time.js";
import { longestTask } from "./main_thread.js";
import { bench } from "./webllm.js";

const query = new URLSearchParams(location.search);
const status = document.getElementById("status");
const result = document.getElementById("result");

const numbers = (name, fallback) => (query.get(name) ?? fallback).split(",").map(Number);
const show = (object) => (result.textContent += `${JSON.stringify(object)}\n`);

async function measure(url) {
  const config = await (await fetch(url)).json();
  const request = {
    config,
    quant: query.get("quant") ?? "q4",
    kv: query.get("kv") ?? "f16",
    exact: query.get("exact") === "1",
    prompt_tokens: numbers("prompt", "128,1024"),
    decode_tokens: numbers("decode", "128")[0],
    at_context: numbers("at", "128"),
    repeats: numbers("repeats", "5")[0],
  };
  const onNote = (what) => (status.textContent = `${url}: ${what}`);
  const [measured, longest_task_ms] = await longestTask(() => bench(request, onNote));
  return { ...measured, model: url, longest_task_ms };
}

try {
  if (query.has("load")) show(await measureLoad(query));
  else for (const url of (query.get("config") ?? "config.json").split(",")) show(await measure(url));
  status.textContent = "done";
  document.body.dataset.state = "ready";
} catch ({ name, message }) {
  status.textContent = `${name}: ${message}`;
  document.body.dataset.state = "error";
}
