/**
 * Keeps the page for when there is no network. It only caches, and only what site.json lists: the page, Python and the
 * wheels. Models are kept elsewhere, and whatever is not listed goes to the network as if this were not here.
 *
 * `webllm site` puts a line in front: `const VERSION = "sha256-..."`, the hash of site.json. So a new site is a new service
 * worker to the browser; it fills a cache of its own, and takes over, and removes the old cache, once no page of the old
 * site is open. A page never gets parts of two versions.
 */

const OURS = `webllm page ${registration.scope} `;
const CACHE = OURS + VERSION;

self.addEventListener("install", (event) => event.waitUntil(fill()));
self.addEventListener("activate", (event) => event.waitUntil(removeOld()));
self.addEventListener("fetch", (event) => {
  const { method, url, headers } = event.request;
  if (method !== "GET" || !url.startsWith(registration.scope) || headers.has("Range")) return;
  event.respondWith(answer(event.request));
});

/** All or nothing: a part that is missing, or is not what site.json says, fails the installation. */
async function fill() {
  const cache = await caches.open(CACHE);
  const listed = await fetch("site.json", { integrity: VERSION, cache: "no-cache" });
  const { files } = await listed.clone().json();
  await cache.put("site.json", listed);
  await cache.addAll(Object.entries(files).map(([path, integrity]) => new Request(path, { integrity })));
}

async function removeOld() {
  const names = await caches.keys();
  await Promise.all(names.filter((name) => name.startsWith(OURS) && name !== CACHE).map((name) => caches.delete(name)));
}

async function answer(request) {
  const cache = await caches.open(CACHE);
  const { origin, pathname } = new URL(request.url);
  const wanted = origin + (pathname.endsWith("/") ? `${pathname}index.html` : pathname);
  const kept = await cache.match(wanted, { ignoreVary: true });
  if (!kept) return fetch(request);
  return kept.redirected ? new Response(kept.body, kept) : kept; // a navigation takes no answer that was redirected
}
