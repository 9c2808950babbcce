/**
 * The settings dialog. Its fields are named as the options of `chat.completions.create`; their limits stand in the HTML.
 * An empty field is not sent. What the user enters is kept in localStorage; the page's address wins over it.
 */

import { $, announce } from "./dom.js";

const KEY = "webllm.settings";

const form = $("settings").querySelector("form");
const fields = [...form.elements].filter(({ name }) => name);
const numbers = fields.filter(({ type }) => type === "number");

let kept = read(); // {name: text}

/** Options for `create`: what is set, and within its limits. */
export function requestOptions() {
  const set = numbers.filter((field) => field.value !== "" && field.validity.valid);
  return Object.fromEntries(set.map((field) => [field.name, field.valueAsNumber]));
}

/** The system message, or none. */
export function systemMessages() {
  const content = form.elements.system.value.trim();
  return content ? [{ role: "system", content }] : [];
}

/**
 * Fill the fields from what was kept and from the address, which may set numbers only: nobody should be able to slip in
 * a system prompt by a link.
 * @param {URLSearchParams} query
 * @returns {string} what is wrong with the address, or ""
 */
export function fillSettings(query) {
  for (const field of fields) setField(field, kept[field.name] ?? "");
  const wrong = numbers.filter(({ name }) => query.has(name)).filter((field) => !setField(field, query.get(field.name)));
  countChanged();
  return wrong.map((field) => `${field.name}=${query.get(field.name)} in the address is ignored: ${limits(field)}.`).join(" ");
}

const limits = ({ min, max, step }) => `wanted a number from ${min}${max && ` to ${max}`} in steps of ${step}`;

/** @returns {boolean} whether the field could take the text; if not, it is as before */
function setField(field, text) {
  const before = field.value;
  field.value = text;
  const fits = field.validity.valid && Boolean(field.value) === Boolean(text);
  if (!fits) field.value = before;
  return fits;
}

function keep({ target }) {
  target.ariaInvalid = String(!target.validity.valid);
  if (!target.validity.valid) return;
  kept[target.name] = target.value;
  write();
  countChanged();
}

function reset() {
  form.reset();
  for (const field of fields) field.ariaInvalid = "false";
  kept = {};
  write();
  countChanged();
  announce("All settings are the model's own");
}

function countChanged() {
  const count = Object.keys(requestOptions()).length + systemMessages().length;
  $("changed").textContent = count ? `${count} changed` : "";
}

/** Storage may be forbidden, and may hold anything. */
function read() {
  try {
    return { ...JSON.parse(localStorage.getItem(KEY)) };
  } catch {
    return {};
  }
}

function write() {
  try {
    localStorage.setItem(KEY, JSON.stringify(kept));
  } catch {
    // then they last as long as the page
  }
}

form.addEventListener("input", keep);
$("reset-settings").addEventListener("click", reset);
$("open-settings").addEventListener("click", () => $("settings").showModal());
