/** doctor.html[?only=norm,matvec]: tests the kernels on this machine's GPU and shows the errors. */

import { doctor } from "./webllm.js";

const query = new URLSearchParams(location.search);
const status = document.getElementById("status");

function show({ kernel, variants, nmse, error, ok }) {
  const row = document.getElementById("kernels").insertRow();
  const cells = [kernel, variants.join(" "), nmse?.toExponential(1) ?? "-", ok ? "ok" : `wrong ${error ?? ""}`];
  for (const text of cells) row.insertCell().textContent = text;
}

try {
  const only = (query.get("only") ?? "").split(",");
  const result = await doctor({ only }, (what) => (status.textContent = `testing ${what}`));
  result.kernels.forEach(show);
  const wrong = result.kernels.filter(({ ok }) => !ok).length;
  status.textContent = `${result.adapter.name}: ${result.kernels.length} kernels and variants, ${wrong} wrong`;
  document.body.dataset.state = "ready";
} catch ({ name, message }) {
  status.textContent = `${name}: ${message}`;
  document.body.dataset.state = "error";
}
