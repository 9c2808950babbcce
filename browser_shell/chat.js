/** The chat page: a view of `window.webllm`. Everything a model writes is shown as text. */

import { listModels, load } from "./webllm.js";

const MB = 1e6;
const NEAR_END = 80; // pixels from the end of the conversation that still count as reading along

const $ = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);

let llm = null;
let conversation = []; // {role, content}, as the model gets it

/** "loading", "ready", "generating" or "error"; the style sheet and tests go by it. */
function setState(state) {
  document.body.dataset.state = state;
  const generating = state === "generating";
  $("send").hidden = generating;
  $("stop").hidden = !generating;
  $("send").disabled = !llm || generating;
  $("new-chat").disabled = !llm;
  for (const button of $("examples").querySelectorAll("button")) button.disabled = !llm || generating;
  $("loading").hidden = state !== "loading";
  $("messages").ariaBusy = String(generating); // read aloud once it is whole
}

// Loading

async function start() {
  try {
    const model = query.get("model") ?? Object.keys(await listModels())[0];
    if (model) await open(model);
    else askForFile("This page comes without a model. Open one from your machine.");
  } catch (error) {
    showError(error);
  }
}

function askForFile(text) {
  setState("ready");
  show($("notice"), text);
  $("picker").hidden = false;
}

async function open(model) {
  setState("loading");
  $("picker").hidden = true;
  const name = model.name ?? model.split("/").at(-1);
  $("model").textContent = name;
  document.title = `${name} · webllm`;
  try {
    llm = await load(model, { onProgress: showProgress });
  } catch (error) {
    return showError(error);
  }
  showAdapter(llm.info.adapter);
  setState("ready");
  $("prompt").focus();
  if (query.get("prompt")) ask(query.get("prompt"));
}

function showAdapter({ name, software }) {
  $("adapter").textContent = name;
  const slow = "No GPU was found, so the model runs on the processor. Answers are the same, but slow.";
  show($("notice"), software ? slow : "");
}

function showProgress({ phase, loaded, total, seconds }) {
  if (phase !== "weights") return;
  const speed = loaded / seconds;
  const left = speed > 0 ? Math.ceil((total - loaded) / speed) : 0;
  const rate = `${(speed / MB).toFixed(0)} MB/s`;
  const done = loaded < total ? `${rate}, ${left} s left` : "preparing the GPU";
  $("loading-text").textContent = `${(loaded / MB).toFixed(0)} of ${(total / MB).toFixed(0)} MB · ${done}`;
  $("loading-bar").max = total;
  $("loading-bar").value = loaded;
}

// Asking

async function ask(text) {
  const before = conversation;
  const message = { role: "user", content: text };
  $("welcome").hidden = true;
  show($("alert"), "");
  addMessage("user", "You").append(text);
  const answer = addMessage("assistant", $("model").textContent);
  setState("generating");
  try {
    const content = await stream([...before, message], answer);
    const answered = [...before, message, { role: "assistant", content }];
    if (conversation === before) conversation = answered; // New chat may have come in between
    setState("ready");
  } catch (error) {
    if (!answer.textContent) answer.closest(".message").remove();
    showError(error);
  }
}

/** @returns {Promise<string>} the whole answer, also when it was stopped */
async function stream(messages, answer) {
  let content = "";
  for await (const { choices, usage } of llm.chat.completions.create({ messages, stream: true })) {
    const piece = choices[0]?.delta.content ?? "";
    content += piece;
    follow(() => answer.append(piece)); // text, never HTML
    if (usage) showStats(usage);
  }
  return content;
}

function showStats({ completion_tokens: tokens, extra }) {
  const { decode_tokens_per_s: speed, time_to_first_token_s: first } = extra;
  const rate = tokens > 1 ? `${speed.toFixed(1)} tokens/s · ` : "";
  const count = tokens === 1 ? "1 token" : `${tokens} tokens`;
  $("stats").textContent = `${count} · ${rate}first after ${first.toFixed(1)} s`;
}

function newChat() {
  if (document.body.dataset.state === "generating") llm.interrupt();
  conversation = [];
  $("messages").replaceChildren();
  $("welcome").hidden = false;
  $("stats").textContent = "";
  show($("alert"), "");
  $("prompt").focus();
}

// The view

/** @returns {HTMLElement} where the message's text goes */
function addMessage(role, author) {
  const message = $("message").content.firstElementChild.cloneNode(true);
  const [name, text, copy] = [".author", ".text", ".copy"].map((part) => message.querySelector(part));
  name.textContent = author;
  text.dataset.role = role;
  message.classList.add(role);
  copy.addEventListener("click", () => copyText(copy, text.textContent));
  $("messages").append(message);
  message.scrollIntoView({ block: "end" });
  return text;
}

/** Change the conversation and stay at its end, unless the reader has scrolled up. */
function follow(change) {
  const view = document.querySelector("main");
  const atEnd = view.scrollHeight - view.scrollTop - view.clientHeight < NEAR_END;
  change();
  if (atEnd) view.scrollTop = view.scrollHeight;
}

async function copyText(button, text) {
  await navigator.clipboard.writeText(text);
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = "Copy"), 1500);
}

function show(element, text) {
  element.textContent = text;
  element.hidden = !text;
}

const TITLES = {
  NoAdapter: "This page needs WebGPU",
  OutOfMemory: "The GPU has too little memory",
  ModelNotFound: "The model was not found",
  FetchError: "Something could not be fetched",
  DeviceLost: "The GPU went away",
};

function showError({ name, message }) {
  const title = document.createElement("strong");
  title.textContent = TITLES[name] ?? "That did not work";
  const text = document.createElement("span");
  text.textContent = message;
  $("alert").replaceChildren(title, text);
  $("alert").hidden = false;
  setState("error");
}

// What the user does

function send() {
  const text = $("prompt").value.trim();
  if (!text || $("send").disabled) return;
  $("prompt").value = "";
  grow();
  ask(text);
}

/** The box is as high as its text, up to what the style sheet allows. */
function grow() {
  const box = $("prompt");
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + box.offsetHeight - box.clientHeight}px`;
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
$("prompt").addEventListener("input", grow);
$("prompt").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
$("stop").addEventListener("click", () => llm.interrupt());
$("new-chat").addEventListener("click", newChat);
$("examples").addEventListener("click", ({ target }) => target.matches("button") && ask(target.textContent));
$("file").addEventListener("change", ({ target }) => target.files[0] && open(target.files[0]));

start();
