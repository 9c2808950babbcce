/** What went wrong, and a way out of it. */

import { $, show } from "./dom.js";

/** Error name -> title */
export const TITLES = {
  NoAdapter: "This page needs WebGPU",
  OutOfMemory: "The GPU has too little memory",
  ModelNotFound: "The model was not found",
  FetchError: "Something could not be fetched",
  StorageFull: "There is no room for the model",
  ChecksumMismatch: "The model came damaged",
  DeviceLost: "The GPU went away",
  ContextFull: "The conversation is too long",
};

/**
 * @param {string} title  empty: nothing is wrong, but there is something to tell
 * @param {string} text
 * @param {[string, () => void]} [wayOut]  a button and what it does
 */
export function showAlert(title, text, [label, act] = []) {
  const strong = document.createElement("strong");
  show(strong, title);
  $("alert").classList.toggle("calm", !title);
  $("alert").hidden = false;
  $("alert-text").replaceChildren(strong, text);
  show($("way-out"), label ?? "");
  $("way-out").onclick = act ?? null;
}

export function hideAlert() {
  $("alert").hidden = true;
  $("alert-text").replaceChildren();
}
