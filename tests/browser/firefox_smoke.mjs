/**
 * node tests/browser/firefox_smoke.mjs URL: opens the chat page of a site in headless Firefox with WebGPU, asks one question
 * and prints what came. URL is one of `webllm site`'s folder, on 127.0.0.1.
 *
 * Needs Debian's firefox-esr and `npm install --no-save puppeteer-core`. On a machine without a GPU,
 * VK_DRIVER_FILES=/usr/share/vulkan/icd.d/lvp_icd.x86_64.json gives it lavapipe.
 */

import puppeteer from "puppeteer-core";

const QUESTION = "What is the capital of France?";
const MINUTES = 10;

const browser = await puppeteer.launch({
  browser: "firefox",
  executablePath: process.env.FIREFOX ?? "/usr/bin/firefox-esr",
  extraPrefsFirefox: { "dom.webgpu.enabled": true, "gfx.webgpu.ignore-blocklist": true },
});
try {
  const page = await browser.newPage();
  const url = new URL(process.argv[2]);
  url.searchParams.set("prompt", QUESTION);
  url.searchParams.set("temperature", "0");
  await page.goto(url.href);
  const over = () => document.body.dataset.state === "error" || document.getElementById("stats").textContent;
  await page.waitForFunction(over, { timeout: MINUTES * 60_000, polling: 500 });
  console.log(JSON.stringify(await page.evaluate(told), null, 2));
  process.exitCode = (await page.evaluate(() => document.body.dataset.state)) === "ready" ? 0 : 1;
} finally {
  await browser.close();
}

async function told() {
  const text = (selector) => [...document.querySelectorAll(selector)].at(-1)?.textContent ?? null;
  const adapter = await navigator.gpu?.requestAdapter();
  return {
    browser: navigator.userAgent,
    features: adapter && [...adapter.features],
    state: document.body.dataset.state,
    answer: text('[data-role="assistant"]'),
    stats: text("#stats"),
    error: text("[role=alert]"),
  };
}
