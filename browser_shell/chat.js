/** The chat page: a view of `window.webllm`. */

import { hideAlert, showAlert, TITLES } from "./alert.js";
import { $, announce, copyText, show } from "./dom.js";
import { onFile } from "./files.js";
import { addMessage, keepMessages } from "./messages.js";
import { fillSettings, requestOptions, systemMessages } from "./settings.js";
import { showStoredModels } from "./stored_models.js";
import { keepOffline, listModels, load } from "./webllm.js";

const MB = 1e6;
const NEAR_END = 80; // pixels from the end of the conversation that still count as reading along
const main = document.querySelector("main");
const query = new URLSearchParams(location.search);
const wrongSettings = fillSettings(query);

let llm = null;
let loading = null; // AbortController of the load that is under way
let conversation = []; // {role, content}; a new array after every change
let downloading = false;
let draft = null; // what stood in the prompt before a question was put there to be edited

/** "loading", "ready", "generating" or "error"; the style sheet and tests go by it. */
function setState(state) {
  const focused = document.activeElement;
  const generating = state === "generating";
  const idle = Boolean(llm) && state !== "loading" && !generating;
  document.body.dataset.state = state;
  $("send").hidden = generating;
  $("stop").hidden = !generating;
  $("send").disabled = !idle;
  $("new-chat").disabled = !llm || state === "loading";
  $("examples").hidden = !llm && state !== "loading";
  for (const button of $("examples").querySelectorAll("button")) button.disabled = !idle;
  $("copy-chat").hidden = !conversation.length;
  $("loading").hidden = state !== "loading";
  $("cancel").hidden = Boolean(llm);
  $("picker").hidden = Boolean(llm) || state === "loading";
  if (focused?.disabled || focused?.checkVisibility() === false) generating ? $("stop").focus() : focusPrompt();
}

/** Where the user goes on; on a touch screen that would open the keyboard, over what there is to read. */
function focusPrompt() {
  const touch = matchMedia("(pointer: coarse)").matches;
  (touch ? main : $("prompt")).focus({ preventScroll: true });
}

// Loading

async function start() {
  try {
    const model = query.get("model") ?? Object.keys(await listModels())[0];
    if (model) await open(model);
    else askForFile("This page comes without a model.");
  } catch (error) {
    showError(error);
  }
}

/** Load a model in the place of the one that is loaded or being loaded. */
async function open(model) {
  const name = model.name ?? model.split("/").at(-1);
  const mine = begin(name);
  newChat();
  await closeModel();
  try {
    llm = await load(model, { onProgress: showProgress, signal: mine.signal });
  } catch (error) {
    if (loading !== mine) return; // another load has taken its place
    const retry = () => open(model);
    if (error.name !== "AbortError") return showError(error, ["Try again", retry]);
    return askForFile(`${name} was not loaded.`, ["Load it", retry]);
  }
  showContext(0, llm.info.context);
  showReady(name);
  if (query.get("prompt")) ask(query.get("prompt"));
  query.delete("prompt");
}

/** @returns {AbortController} of the load that begins */
function begin(name) {
  loading?.abort();
  loading = new AbortController();
  $("model").textContent = name;
  $("adapter").textContent = "";
  document.title = `${name} · webllm`;
  show($("notice"), "");
  return loading;
}

async function closeModel() {
  const closing = llm;
  llm = null;
  $("context").hidden = true;
  showLoading();
  await closing?.close().catch(() => {}); // it may be lost already
}

/** Load the model anew after its GPU went away; the conversation goes on. */
async function reload() {
  const mine = llm;
  const current = () => llm === mine; // until another load takes its place
  showLoading();
  try {
    await mine.reload({ onProgress: (progress) => current() && showProgress(progress) });
  } catch (error) {
    if (current()) showError(error, ["Reload the model", reload]);
    return;
  }
  if (current()) showReady($("model").textContent);
}

function askForFile(text, wayOut) {
  setState("ready");
  showAlert("", text, wayOut);
}

function showLoading() {
  downloading = false;
  $("loading-text").textContent = "Starting Python and fetching the model";
  $("loading-bar").removeAttribute("value");
  hideAlert();
  setState("loading");
}

function showReady(name) {
  const { name: adapter, software } = llm.info.adapter;
  const slow = software && "No GPU was found, so the model runs on the processor. Answers are the same, but slow.";
  $("adapter").textContent = adapter;
  show($("notice"), [wrongSettings, slow].filter(Boolean).join(" "));
  hideAlert();
  setState("ready");
  announce(`${name} is ready`);
  if (document.activeElement === document.body) focusPrompt();
}

/** The download, as long as there is one; then what goes from the browser's store to the GPU. */
function showProgress({ phase, loaded, total, stored = 0, seconds }) {
  if (phase === "download") downloading = loaded < total;
  if (phase === "weights" ? downloading : phase !== "download") return;
  const speed = (loaded - stored) / seconds;
  const left = speed > 0 ? Math.ceil((total - loaded) / speed) : 0;
  const rate = `${(speed / MB).toFixed(0)} MB/s`;
  const done = loaded < total ? `${rate}, ${left} s left` : "preparing the GPU";
  $("loading-text").textContent = `${(loaded / MB).toFixed(0)} of ${(total / MB).toFixed(0)} MB · ${done}`;
  $("loading-bar").max = total;
  $("loading-bar").value = loaded;
}

// Asking

/** @param {string} text  @param {object[]} before  the conversation that the question goes on */
async function ask(text, before = conversation) {
  const was = conversation;
  const asked = [...before, { role: "user", content: text }];
  const answer = { role: "assistant", content: "" };
  $("welcome").hidden = true;
  hideAlert();
  keepMessages(before.length);
  addToView(asked.at(-1));
  const view = addToView(answer);
  setState("generating");
  const failure = await stream(asked, ({ choices: [choice], usage }) => {
    if (conversation !== was) return; // New chat came in between
    const piece = choice?.delta.content ?? "";
    answer.content += piece;
    follow(() => view.append(piece));
    if (usage) showUsage(usage, choice?.finish_reason);
  });
  if (conversation === was) finish(asked, answer, failure);
  else if (document.body.dataset.state === "generating") setState("ready");
}

/** @returns {Promise<Error | null>} what went wrong */
async function stream(messages, onChunk) {
  const request = { messages: [...systemMessages(), ...messages], stream: true, ...requestOptions() };
  try {
    for await (const chunk of llm.chat.completions.create(request)) onChunk(chunk);
    return null;
  } catch (error) {
    return error;
  }
}

/** Half an answer is kept; where there is none, so is the conversation as it was, and the question goes to the prompt. */
function finish(asked, answer, failure) {
  if (failure && !answer.content) giveBack(asked.at(-1).content, asked.length - 1);
  else conversation = [...asked, answer];
  if (failure) return showError(failure);
  setState("ready");
  announce(`${$("model").textContent}: ${answer.content}`);
}

function giveBack(text, unchanged) {
  keepMessages(unchanged);
  conversation.slice(unchanged).forEach(addToView);
  $("welcome").hidden = conversation.length > 0;
  if (conversation[unchanged]?.content === text) return; // it was asked once more, and still stands there
  setPrompt([text, $("prompt").value].filter(Boolean).join("\n"));
}

function addToView(message) {
  const author = message.role === "user" ? "You" : $("model").textContent;
  const view = addMessage(message.role, author, { again, edit });
  view.append(message.content);
  return view;
}

/** Answer the last question once more. */
function again() {
  if ($("send").disabled) return;
  ask(conversation.at(-2).content, conversation.slice(0, -2));
  $("stop").focus();
}

/** Put the last question into the prompt; sent, it takes the place of the one that was. */
function edit() {
  if ($("send").disabled) return;
  draft ??= $("prompt").value;
  $("editing").hidden = false;
  setPrompt(conversation.at(-2).content);
  $("prompt").focus();
}

function endEdit() {
  if (draft !== null) setPrompt(draft);
  draft = null;
  $("editing").hidden = true;
}

function showUsage({ completion_tokens: tokens, total_tokens: total, extra }, reason) {
  const { decode_tokens_per_s: speed, time_to_first_token_s: first } = extra;
  const rate = tokens > 1 ? `${speed.toFixed(1)} tokens/s · ` : "";
  const count = tokens === 1 ? "1 token" : `${tokens} tokens`;
  const cut = reason === "length" ? " · cut off at the limit" : "";
  $("stats").textContent = `${count} · ${rate}first after ${first.toFixed(1)} s${cut}`;
  showContext(total, llm.info.context);
}

/** Tokens of the conversation, and how many there may be. */
function showContext(used, context) {
  $("context-meter").max = context;
  $("context-meter").high = 0.9 * context;
  $("context-meter").value = used;
  $("context-text").textContent = `${used} of ${context} tokens`;
  $("context").hidden = false;
}

function newChat() {
  if (document.body.dataset.state === "generating") llm.interrupt();
  conversation = [];
  keepMessages(0);
  endEdit();
  $("welcome").hidden = false;
  $("copy-chat").hidden = true;
  $("stats").textContent = "";
  if (llm) showContext(0, llm.info.context);
}

/** Change the conversation and stay at its end, unless the reader has scrolled up. */
function follow(change) {
  const atEnd = main.scrollHeight - main.scrollTop - main.clientHeight < NEAR_END;
  change();
  if (atEnd) main.scrollTop = main.scrollHeight;
}

function transcript() {
  const author = (role) => (role === "user" ? "You" : $("model").textContent);
  return conversation.map(({ role, content }) => `${author(role)}:\n${content}\n`).join("\n");
}

/** Error name -> [button, what it does] */
const WAYS_OUT = { DeviceLost: ["Reload the model", reload], ContextFull: ["New chat", startOver] };

function showError(error, wayOut = WAYS_OUT[error.name]) {
  setState("error");
  showAlert(TITLES[error.name] ?? "That did not work", error.message, wayOut);
}

// What the user does

function send() {
  const text = $("prompt").value.trim();
  if (!text || $("send").disabled) return;
  const before = draft === null ? conversation : conversation.slice(0, -2);
  setPrompt("");
  endEdit();
  ask(text, before);
}

function startOver() {
  newChat();
  hideAlert();
  if (document.body.dataset.state === "error") setState("ready");
  focusPrompt();
}

function setPrompt(text) {
  $("prompt").value = text;
  grow();
}

/** The box is as high as its text, up to what the style sheet allows. */
function grow() {
  const box = $("prompt");
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + box.offsetHeight - box.clientHeight}px`;
}

function openFile(file) {
  if (/\.gguf$/i.test(file.name)) open(file);
  else show($("notice"), `${file.name} was not opened: the page opens model files that end in .gguf.`);
}

/** Esc stops the answer, or leaves the editing of a question; an open dialog takes it for itself. */
function onEscape() {
  if ($("settings").open) return;
  if (document.body.dataset.state === "generating") llm.interrupt();
  else if (draft !== null) cancelEdit();
}

function cancelEdit() {
  endEdit();
  focusPrompt();
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
document.addEventListener("keydown", ({ key, isComposing }) => key === "Escape" && !isComposing && onEscape());
$("stop").addEventListener("click", () => llm.interrupt());
$("cancel").addEventListener("click", () => loading.abort());
$("cancel-edit").addEventListener("click", cancelEdit);
$("new-chat").addEventListener("click", startOver);
$("copy-chat").addEventListener("click", ({ currentTarget }) => copyText(currentTarget, transcript()));
$("examples").addEventListener("click", ({ target }) => target.matches("button") && ask(target.textContent));
onFile(openFile);
showStoredModels(open);

keepOffline().catch(() => {}); // the page works without, as long as there is a network
start();
