/** compat.html: a page of Web LLM's, whose import is the only line that was changed. */

import * as webllm from "./webllm-compat.js"; // it was "@mlc-ai/web-llm"
import { $ } from "./dom.js";

let engine = null;
const messages = [];

const creators = {
  page: (modelId, config) => webllm.CreateMLCEngine(modelId, config),
  worker: (modelId, config) => {
    const worker = new Worker(new URL("./compat-worker.js", import.meta.url), { type: "module" });
    return webllm.CreateWebWorkerMLCEngine(worker, modelId, config);
  },
  service: (modelId, config) => webllm.CreateServiceWorkerMLCEngine(modelId, config),
};

function enter(state, text) {
  document.body.dataset.state = state;
  if (text !== undefined) $("status").textContent = text;
  $("create").disabled = state === "loading" || state === "generating";
  $("send").disabled = $("reset").disabled = state !== "ready";
  $("stop").disabled = state !== "generating";
}

function initProgressCallback({ progress, timeElapsed, text }) {
  $("progress").value = progress;
  $("status").textContent = `${text} (${timeElapsed} s)`;
}

async function load() {
  enter("loading");
  await engine?.unload();
  messages.splice(0, Infinity, { role: "system", content: "You are a helpful AI assistant." });
  engine = await creators[$("engine").value]($("model-id").value, { initProgressCallback });
  enter("ready");
}

async function ask() {
  enter("generating", "");
  messages.push({ role: "user", content: $("message").value });
  const max_tokens = $("max-tokens").valueAsNumber;
  const chunks = await engine.chat.completions.create({
    messages,
    max_tokens,
    temperature: 0,
    stream: true,
    stream_options: { include_usage: true },
  });
  $("answer").textContent = "";
  for await (const chunk of chunks) {
    $("answer").append(chunk.choices[0]?.delta.content ?? "");
    if (chunk.usage) $("usage").textContent = JSON.stringify(chunk.usage, null, 2);
  }
  messages.push({ role: "assistant", content: await engine.getMessage() });
  enter("ready", await engine.runtimeStatsText());
}

async function reset() {
  await engine.resetChat();
  messages.length = 1;
  $("answer").textContent = $("usage").textContent = "";
  enter("ready", "The chat is empty.");
}

/** Do what a form or button is for, and show what goes wrong. */
const handle = (act) => async (event) => {
  event.preventDefault();
  try {
    await act();
  } catch ({ name, message }) {
    enter("error", `${name}: ${message}`);
  }
};

for (const { model_id } of webllm.prebuiltAppConfig.model_list) $("model-id").append(new Option(model_id));
$("load").onsubmit = handle(load);
$("ask").onsubmit = handle(ask);
$("reset").onclick = handle(reset);
$("stop").onclick = () => engine.interruptGenerate();
