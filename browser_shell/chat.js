/** The chat page: a view of `window.webllm`. */

import { Alert } from "./alert.js";
import { Composer } from "./composer.js";
import { $, announce, copyText, keepFocus, show } from "./dom.js";
import { onFile } from "./files.js";
import { Loading } from "./loading.js";
import { addMessage, describeUsage, follow, keepMessages, scrollToEnd } from "./messages.js";
import { fillSettings, requestOptions, systemMessages } from "./settings.js";
import { showStoredModels } from "./stored_models.js";
import { keepOffline, listModels, load } from "./webllm.js";

const main = document.querySelector("main");
const alert = new Alert(document);
const progress = new Loading(document);
const composer = new Composer(document, { send, stop: () => llm.interrupt() });
const query = new URLSearchParams(location.search);
const wrongSettings = fillSettings(query);

let llm = null;
let loading = null; // AbortController of the load that is under way
let conversation = []; // {role, content}; a new array after every change
let draft = null; // what stood in the prompt before a question was put there to be edited

/** "loading", "ready", "generating" or "error"; the style sheet and tests go by it. */
function setState(state) {
  const generating = state === "generating";
  keepFocus(document, () => showState(state), () => (generating ? composer.focusStop() : focusPrompt()));
}

function showState(state) {
  const generating = state === "generating";
  const ready = Boolean(llm) && state !== "loading" && !generating;
  document.body.dataset.state = state;
  composer.setState({ ready, generating });
  $("new-chat").disabled = !llm || state === "loading";
  $("examples").hidden = !llm && state !== "loading";
  for (const button of $("examples").querySelectorAll("button")) button.disabled = !ready;
  $("copy-chat").hidden = !conversation.length;
  $("loading").hidden = state !== "loading";
  $("cancel").hidden = Boolean(llm);
  $("picker").hidden = Boolean(llm) || state === "loading";
}

/** Where the user goes on; on a touch screen that would open the keyboard, over what there is to read. */
function focusPrompt() {
  const touch = matchMedia("(pointer: coarse)").matches;
  touch ? main.focus({ preventScroll: true }) : composer.focus();
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
  const name = model.name ?? model.replace(/\/$/, "").split("/").at(-1);
  const mine = begin(name);
  newChat();
  await closeModel();
  try {
    llm = await load(model, { onProgress: (event) => progress.show(event), signal: mine.signal });
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
    await mine.reload({ onProgress: (event) => current() && progress.show(event) });
  } catch (error) {
    if (current()) showError(error, ["Reload the model", reload]);
    return;
  }
  if (current()) showReady($("model").textContent);
}

function askForFile(text, wayOut) {
  setState("ready");
  alert.tell(text, wayOut);
}

function showLoading() {
  progress.start();
  alert.hide();
  setState("loading");
}

function showReady(name) {
  const { name: adapter, software } = llm.info.adapter;
  const slow = software && "No GPU was found, so the model runs on the processor. Answers are the same, but slow.";
  $("adapter").textContent = adapter;
  show($("notice"), [wrongSettings, slow].filter(Boolean).join(" "));
  alert.hide();
  setState("ready");
  announce(`${name} is ready`);
  if (document.activeElement === document.body) focusPrompt();
}

// Asking

/** @param {string} text  @param {object[]} before  the conversation that the question goes on */
async function ask(text, before = conversation) {
  const was = conversation;
  const asked = [...before, { role: "user", content: text }];
  const answer = { role: "assistant", content: "" };
  $("welcome").hidden = true;
  alert.hide();
  keepMessages($("messages"), before.length);
  addToView(asked.at(-1));
  const view = addToView(answer);
  setState("generating");
  const failure = await stream(asked, ({ choices: [choice], usage }) => {
    if (conversation !== was) return; // New chat came in between
    const piece = choice?.delta.content ?? "";
    answer.content += piece;
    follow(main, () => view.append(piece));
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
  keepMessages($("messages"), unchanged);
  conversation.slice(unchanged).forEach(addToView);
  $("welcome").hidden = conversation.length > 0;
  if (conversation[unchanged]?.content === text) return; // it was asked once more, and still stands there
  composer.text = [text, composer.text].filter(Boolean).join("\n");
}

function addToView(message) {
  const author = message.role === "user" ? "You" : $("model").textContent;
  const view = addMessage($("messages"), message.role, author, { again, edit });
  view.append(message.content);
  scrollToEnd(main);
  return view;
}

/** Answer the last question once more. */
function again() {
  if (!composer.ready) return;
  ask(conversation.at(-2).content, conversation.slice(0, -2));
  composer.focusStop();
}

/** Put the last question into the prompt; sent, it takes the place of the one that was. */
function edit() {
  if (!composer.ready) return;
  draft ??= composer.text;
  $("editing").hidden = false;
  composer.text = conversation.at(-2).content;
  composer.focus();
}

function endEdit() {
  if (draft !== null) composer.text = draft;
  draft = null;
  $("editing").hidden = true;
}

function showUsage(usage, reason) {
  $("stats").textContent = describeUsage(usage, reason);
  showContext(usage.total_tokens, llm.info.context);
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
  keepMessages($("messages"), 0);
  endEdit();
  $("welcome").hidden = false;
  $("copy-chat").hidden = true;
  $("stats").textContent = "";
  if (llm) showContext(0, llm.info.context);
}

function transcript() {
  const author = (role) => (role === "user" ? "You" : $("model").textContent);
  return conversation.map(({ role, content }) => `${author(role)}:\n${content}\n`).join("\n");
}

/** Error name -> [button, what it does] */
const WAYS_OUT = { DeviceLost: ["Reload the model", reload], ContextFull: ["New chat", startOver] };

function showError(error, wayOut = WAYS_OUT[error.name]) {
  setState("error");
  alert.showError(error, wayOut);
}

// What the user does

function send() {
  const text = composer.text.trim();
  const before = draft === null ? conversation : conversation.slice(0, -2);
  composer.text = "";
  endEdit();
  ask(text, before);
}

function startOver() {
  newChat();
  alert.hide();
  if (document.body.dataset.state === "error") setState("ready");
  focusPrompt();
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

document.addEventListener("keydown", ({ key, isComposing }) => key === "Escape" && !isComposing && onEscape());
$("cancel").addEventListener("click", () => loading.abort());
$("cancel-edit").addEventListener("click", cancelEdit);
$("new-chat").addEventListener("click", startOver);
$("copy-chat").addEventListener("click", ({ currentTarget }) => copyText(currentTarget, transcript()));
$("examples").addEventListener("click", ({ target }) => target.matches("button") && ask(target.textContent));
onFile(openFile);
showStoredModels(open);

keepOffline().catch(() => {}); // the page works without, as long as there is a network
start();
