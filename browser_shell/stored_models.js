/** The part of the settings that shows which models are kept in this browser: load, check, save as a file, delete, add. */

import { $, announce, show } from "./dom.js";
import { cache } from "./webllm.js";

const MB = 1e6;

let working = false;

/** @param {(name: string) => void} open  called with the name of a model that the user wants to load */
export function showStoredModels(open) {
  $("open-settings").addEventListener("click", () => tell(""));
  $("import").addEventListener("change", ({ target }) => {
    const [file] = target.files;
    target.value = ""; // the same file may be picked again
    if (file) run(() => add(file));
  });
  $("stored").addEventListener("click", ({ target }) => {
    const button = target.closest("button");
    const { name } = button?.closest("li")?.dataset ?? {};
    if (name) act(button, name, open);
  });
}

function act(button, name, open) {
  if (button.value === "load") {
    $("settings").close();
    return open(name);
  }
  if (button.value !== "delete") return run(() => ACTIONS[button.value](name));
  if (button.dataset.sure) return run(() => remove(name));
  button.dataset.sure = "yes"; // it may be gigabytes: asked once more
  button.textContent = "Really delete";
  button.ariaLabel = `Really delete ${name}`;
}

/** One thing at a time; then the list is as it is by then. */
async function run(work) {
  if (working) return;
  working = true;
  for (const button of $("stored").querySelectorAll("button")) button.disabled = true;
  const text = await work().catch(({ message }) => message);
  working = false;
  await tell(text);
  announce(text);
}

async function tell(text) {
  show($("stored-status"), text);
  const models = await cache.list().catch(() => []);
  $("stored-list").replaceChildren(...models.map(line));
  const used = models.reduce((sum, { stored_bytes }) => sum + stored_bytes, 0);
  const { free } = (await cache.space().catch(() => null)) ?? {};
  const left = free === undefined ? "" : `; the browser speaks of ${megabytes(free)} that are free`;
  $("stored-space").textContent = models.length ? `${megabytes(used)} in all${left}.` : "None yet.";
}

function line({ name, bytes, stored_bytes, complete }) {
  const item = $("stored-model").content.cloneNode(true).querySelector("li");
  const [title, size] = item.querySelectorAll("span");
  item.dataset.name = name;
  title.textContent = name;
  size.textContent = complete ? megabytes(bytes) : `${megabytes(stored_bytes)} of ${megabytes(bytes)}`;
  for (const button of item.querySelectorAll("button")) {
    button.ariaLabel = `${button.textContent} ${name}`;
    if (button.value === "export") button.hidden = !complete;
  }
  return item;
}

const ACTIONS = {
  async verify(name) {
    const right = await cache.verify(name, (progress) => showProgress("Checking", name, progress));
    return right ? `${name} is whole and right.` : `${name} is not whole: what is missing is fetched when it is loaded.`;
  },

  async export(name) {
    const file = await cache.export(name);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(file);
    link.download = file.name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // by then the browser has opened it
    return `${file.name} is saved where the browser keeps downloads.`;
  },
};

async function remove(name) {
  const there = await cache.delete(name);
  return there ? `${name} was deleted.` : `${name} was not there.`;
}

async function add(file) {
  const { name } = await cache.import(file, undefined, (progress) => showProgress("Adding", file.name, progress));
  return `${name} is kept.`;
}

function showProgress(doing, name, { loaded, total }) {
  show($("stored-status"), `${doing} ${name}: ${megabytes(loaded)} of ${megabytes(total)}`);
}

const megabytes = (bytes) => `${(bytes / MB).toFixed(bytes < 10 * MB ? 1 : 0)} MB`;
