/** playground.html[?kernel=matvec]: kernels to be edited and run on this machine's GPU, against their references. */

import { $, show } from "./dom.js";
import { Playground } from "./webllm.js";

let playground = new Playground();
let kernels = [];
let originals = {}; // file -> text
const edits = {}; // file -> text that differs
const before = new Map(); // kernel -> what it came to unedited

const chosen = () => kernels[$("variants").value];
const file = () => $("source").value;

function enter(state, text) {
  document.body.dataset.state = state;
  $("status").textContent = text;
  $("text").readOnly = state !== "ready";
  for (const id of ["kernel", "variants", "source", "run"]) $(id).disabled = state !== "ready";
  $("end").disabled = state !== "running";
  $("reset").disabled = state !== "ready" || !(file() in edits);
}

/** Fill a select, and choose the first that is there of: what was chosen, `preferred`, the first option. */
function fill(select, options, preferred = []) {
  const value = [select.value, ...preferred].find((one) => options.some((option) => option.value === one));
  select.replaceChildren(...options);
  if (value !== undefined) select.value = value;
}

function showKernel() {
  const options = kernels.map(({ variants }, i) => new Option(variants.join(" ") || "-", i));
  $("source").replaceChildren(); // the kernel's own will be chosen
  fill($("variants"), options.filter((_, i) => kernels[i].kernel === $("kernel").value));
  showVariants();
}

function showVariants() {
  const { files, kernel } = chosen();
  fill($("source"), files.map((name) => new Option(`${name}.wgsl`, name)), [kernel]);
  $("result").hidden = true;
  showFile();
}

function showFile() {
  $("text").value = edits[file()] ?? originals[file()];
  show($("error"), "");
  number();
}

/** Write the numbers of the lines; one may be wrong. */
function number(wrong = null) {
  const count = $("text").value.split("\n").length;
  const lines = Array.from({ length: count }, () => document.createElement("span"));
  lines.forEach((line, i) => (line.textContent = i + 1));
  lines[wrong - 1]?.classList.add("wrong");
  $("numbers").replaceChildren(...lines);
  $("text").setAttribute("aria-invalid", wrong !== null);
  $("numbers").scrollTop = $("text").scrollTop;
}

function edit() {
  const text = $("text").value;
  if (text === originals[file()]) delete edits[file()];
  else edits[file()] = text;
  $("reset").disabled = !(file() in edits);
  number();
}

async function run() {
  const entry = chosen();
  const edited = Object.fromEntries(Object.entries(edits).filter(([name]) => entry.files.includes(name)));
  const focused = document.activeElement; // a button that is disabled loses it
  enter("running", "Running");
  show($("error"), "");
  try {
    if (!before.has(entry)) before.set(entry, await playground.run({ entry, edits: {} }));
    const was = before.get(entry);
    showOutcome(Object.keys(edited).length ? await playground.run({ entry, edits: edited }) : was, was);
  } catch ({ name, message }) {
    $("result").hidden = true;
    enter("ready", "It did not run.");
    show($("error"), `${name}: ${message}`);
  }
  if (document.activeElement === document.body) focused.focus();
}

function showOutcome(now, was) {
  $("result").hidden = now.error !== null;
  if (now.error !== null) {
    enter("ready", "It does not compile.");
    show($("error"), now.error);
    return pointAt(now.file, now.line);
  }
  for (const [column, { nmse, gb_per_s }] of Object.entries({ now, before: was })) {
    $(`error-${column}`).textContent = nmse.toExponential(1);
    $(`speed-${column}`).textContent = gb_per_s === null ? "not measured" : `${gb_per_s.toPrecision(3)} GB/s`;
  }
  const verdict = now.nmse <= now.most ? "Right" : "Wrong";
  enter("ready", `${verdict} on ${now.adapter}: the error may be ${now.most.toExponential(0)} at most.`);
}

/** Open a file at a line, select the line and mark its number. */
function pointAt(name, line) {
  if (line === null) return;
  $("source").value = name;
  const told = $("error").textContent;
  showFile();
  show($("error"), told);
  const lines = $("text").value.split("\n");
  const start = lines.slice(0, line - 1).join("\n").length + (line > 1);
  $("text").focus();
  $("text").setSelectionRange(start, start + (lines[line - 1] ?? "").length);
  $("text").scrollTop = ((line - 5) * $("text").scrollHeight) / lines.length;
  number(line);
}

function cancel() {
  playground.close();
  playground = new Playground();
}

$("kernel").onchange = showKernel;
$("variants").onchange = showVariants;
$("source").onchange = () => {
  showFile();
  $("reset").disabled = !(file() in edits);
};
$("text").oninput = edit;
$("text").onscroll = () => ($("numbers").scrollTop = $("text").scrollTop);
$("text").onkeydown = (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && run();
$("run").onclick = run;
$("end").onclick = cancel;
$("reset").onclick = () => {
  $("text").value = originals[file()];
  edit();
};

try {
  ({ kernels, files: originals } = await playground.list((what) => ($("status").textContent = what)));
  const names = [...new Set(kernels.map(({ kernel }) => kernel))];
  const wanted = new URLSearchParams(location.search).get("kernel");
  fill($("kernel"), names.map((name) => new Option(name)), [wanted, "rms_norm"]);
  showKernel();
  enter("ready", `${kernels.length} kernels and variants. Ctrl+Enter runs what is shown.`);
} catch ({ name, message }) {
  enter("error", `${name}: ${message}`);
}
