/**
 * `<script type="text/python">`: cells that run in document order, in one Python with `webllm` imported and top-level
 * await. What a cell prints and the value of its last expression are shown behind it, as text: `_repr_html_` is not
 * asked for, because it may hold what a model wrote.
 *
 * data-run="manual": with a button, and not by itself. data-editable: the visitor sees and changes the code.
 * data-output="ID": what it prints and its value go into that element. data-name: as tracebacks call it.
 */

import { announce, icon, keepFocus, make, show } from "./dom.js";
import { Interpreter } from "./interpreter.js";
import { Loading } from "./loading.js";

const PATIENCE_MS = 1500; // until Python that does not stop may be started anew

/** @type {Interpreter | null} */
let python = null;

/** Run the cells of the page. */
export function runCells() {
  const scripts = document.querySelectorAll('script[type="text/python"]');
  scripts.forEach((script, i) => new Cell(/** @type {HTMLScriptElement} */ (script), i + 1));
}

class Cell {
  #script;
  #name;
  #host = make("web-llm-cell");
  #root = this.#host.attachShadow({ mode: "open" });
  #loading;
  #output;
  /** @type {AbortController | null} */
  #running = null;

  constructor(script, number) {
    this.#script = script;
    this.#name = script.dataset.name ?? `cell ${number}`;
    const { manual, editable } = { manual: script.dataset.run === "manual", editable: "editable" in script.dataset };
    this.#root.append(make("link", { rel: "stylesheet", href: new URL("cells.css", import.meta.url).href }));
    this.#root.append(frame(this.#name, editable && dedent(script.textContent)));
    this.#loading = new Loading(this.#root);
    this.#output = document.getElementById(script.dataset.output) ?? this.#$("output");
    this.#$("run").hidden = !manual && !editable;
    this.#$("run").addEventListener("click", () => this.#run());
    this.#$("stop").addEventListener("click", () => this.#stop());
    this.#$("restart").addEventListener("click", () => python.restart());
    this.#$("source")?.addEventListener("keydown", (event) => this.#onKey(event));
    script.after(this.#host);
    this.#setState("idle");
    if (!manual) this.#run();
  }

  /** @returns {any} an element */
  #$(id) {
    return this.#root.getElementById(id);
  }

  get #code() {
    return this.#$("source")?.value ?? dedent(this.#script.textContent);
  }

  async #run() {
    if (this.#running) return;
    const mine = (this.#running = new AbortController());
    this.#output.replaceChildren();
    show(this.#$("error"), "");
    this.#setState("waiting");
    const onStart = () => this.#setState("running");
    const onEvent = (event) => this.#show(event);
    try {
      python ??= new Interpreter();
      const { value, error } = await python.run(this.#code, this.#name, { onStart, onEvent, signal: mine.signal });
      if (value !== null) this.#write(value, "value");
      this.#end(error ?? "");
    } catch ({ name, message }) {
      this.#end(name === "AbortError" ? "not run" : `${name}: ${message}`);
    }
  }

  #stop() {
    const stopped = this.#running;
    stopped.abort();
    setTimeout(() => (this.#$("restart").hidden = this.#running !== stopped), PATIENCE_MS);
  }

  #end(error) {
    this.#running = null;
    show(this.#$("error"), error);
    this.#setState(error ? "error" : "done");
    announce(error ? `${this.#name}: ${error.trim().split("\n").at(-1)}` : this.#output.textContent, this.#root);
  }

  #show({ stdout, stderr, progress }) {
    if (stdout !== undefined) this.#write(stdout, "stdout");
    if (stderr !== undefined) this.#write(stderr, "stderr");
    if (progress) this.#showProgress(progress);
  }

  #showProgress(progress) {
    this.#loading.show(progress);
    this.#$("loading").hidden = progress.phase === "weights" && progress.loaded === progress.total;
  }

  /** @param {"stdout" | "stderr" | "value"} kind */
  #write(text, kind) {
    const last = this.#output.lastElementChild;
    const lines = last?.classList.contains(kind) ? last : make("span", { class: kind, part: kind });
    if (lines !== last) this.#output.append(lines);
    lines.append(text);
  }

  /** @param {"idle" | "waiting" | "running" | "done" | "error"} state */
  #setState(state) {
    const busy = state === "waiting" || state === "running";
    this.#host.dataset.state = state;
    this.#$("status").textContent = { waiting: "waiting for Python", running: "running" }[state] ?? "";
    const change = () => {
      this.#$("stop").hidden = !busy;
      this.#$("run").disabled = busy;
      this.#$("loading").hidden = true;
      if (!busy) this.#$("restart").hidden = true;
    };
    keepFocus(this.#root, change, () => this.#$(busy ? "stop" : "run").focus());
  }

  /** Shift+Enter and Ctrl+Enter run, as in a notebook; Tab leaves, as everywhere. */
  #onKey(event) {
    if (event.key !== "Enter" || !(event.shiftKey || event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    this.#run();
  }
}

/** The code without the indentation that all of its lines share, and without empty lines around it. */
function dedent(code) {
  const lines = code.replace(/^\s*\n|\s+$/g, "").split("\n");
  const indents = lines.filter((line) => line.trim()).map((line) => line.match(/^[ \t]*/)[0].length);
  const shared = Math.min(...indents, Infinity);
  return lines.map((line) => line.slice(shared)).join("\n");
}

/** @param {string} name  @param {string | false} code  in a field, where the visitor may change it */
function frame(name, code) {
  const button = (id, name, ...children) => make("button", { type: "button", id, class: "quiet", part: id }, icon(name), ...children);
  const source = code === false ? [] : [sourceField(name, code)];
  return make(
    "section",
    { class: "cell", "aria-label": name },
    ...source,
    make(
      "p",
      { class: "bar" },
      button("run", "run", "Run"),
      button("stop", "stop", "Stop"),
      button("restart", "again", "Restart Python"),
      make("span", { id: "status", class: "hint" }),
    ),
    make(
      "div",
      { id: "loading", role: "group", "aria-label": "Loading the model" },
      make("p", { id: "loading-text" }),
      make("progress", { id: "loading-bar", "aria-labelledby": "loading-text" }),
    ),
    make("output", { id: "output", part: "output", "aria-live": "off" }),
    make("pre", { id: "error", part: "error", tabindex: 0, role: "group", "aria-label": "Error", hidden: true }),
    make("p", { id: "announcer", class: "unseen", role: "status" }),
  );
}

function sourceField(name, code) {
  const field = make("textarea", { id: "source", part: "source", "aria-label": `${name}: code`, spellcheck: "false", wrap: "off" }, code);
  field.setAttribute("rows", String(code.split("\n").length + 1));
  return field;
}
