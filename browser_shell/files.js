/** Files of the user's: picked, or dropped on the page. They are read where they lie; nothing is uploaded. */

import { $ } from "./dom.js";

const holdsFile = ({ dataTransfer }) => dataTransfer.types.includes("Files");
const setDropping = (dropping) => document.body.classList.toggle("dropping", dropping);

/** @param {(file: File) => void} open  called with each file that the user gives */
export function onFile(open) {
  $("file").addEventListener("change", ({ target }) => {
    const [file] = target.files;
    target.value = ""; // the same file may be picked again
    if (file) open(file);
  });
  document.addEventListener("dragover", (event) => {
    if (!holdsFile(event)) return;
    event.preventDefault();
    setDropping(true);
  });
  document.addEventListener("dragleave", ({ relatedTarget }) => !relatedTarget && setDropping(false));
  document.addEventListener("drop", (event) => {
    setDropping(false);
    if (!holdsFile(event)) return;
    event.preventDefault();
    open(event.dataTransfer.files[0]);
  });
}
