/**
 * bench.html?config=URL[&quant=q4&prompt=128,1024&decode=128&at=128&repeats=5]: measures and shows one JSON object.
 * config is the URL of a config.json; several, separated by commas, are measured one after the other.
 */

import { bench } from "./webllm.js";

const query = new URLSearchParams(location.search);
const status = document.getElementById("status");
const result = document.getElementById("result");

const numbers = (name, fallback) => (query.get(name) ?? fallback).split(",").map(Number);

async function measure(url) {
  const config = await (await fetch(url)).json();
  const request = {
    config,
    quant: query.get("quant") ?? "q4",
    prompt_tokens: numbers("prompt", "128,1024"),
    decode_tokens: numbers("decode", "128")[0],
    at_context: numbers("at", "128"),
    repeats: numbers("repeats", "5")[0],
  };
  return bench(request, (what) => (status.textContent = `${url}: ${what}`));
}

try {
  for (const url of (query.get("config") ?? "config.json").split(",")) {
    result.textContent += `${JSON.stringify(await measure(url))}\n`;
  }
  status.textContent = "done";
  document.body.dataset.state = "ready";
} catch ({ name, message }) {
  status.textContent = `${name}: ${message}`;
  document.body.dataset.state = "error";
}
