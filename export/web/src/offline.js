// The service worker: the newest while there is a server, what was last seen while there is none.

const FILES = __FILES__;
const CACHE = "kerasdet-__VERSION__";
// Others may serve at this address too, before or after: what is not the page's own is none of its business.
const OWN = new Set([...FILES, "index.html", "model.tflite"].map((file) => new URL(file, self.location).href));

self.addEventListener("install", (event) => {
  event.waitUntil(keep());
});

async function keep() {
  const cache = await caches.open(CACHE);
  // Not what the browser has kept of an older version.
  const afresh = (file) => new Request(file, { cache: "reload" });
  await cache.addAll(FILES.map(afresh));
  await cache.add(afresh("model.tflite")).catch(() => {}); // a page may have none
  await self.skipWaiting();
}

self.addEventListener("activate", (event) => {
  event.waitUntil(takeOver());
});

async function takeOver() {
  const old = (await caches.keys()).filter((name) => name.startsWith("kerasdet-") && name !== CACHE);
  await Promise.all(old.map((name) => caches.delete(name)));
  await self.clients.claim();
}

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const [address] = request.url.split(/[?#]/);
  if (request.method === "GET" && OWN.has(address)) event.respondWith(answer(event));
});

async function answer(event) {
  const { request } = event;
  const cache = await caches.open(CACHE);
  try {
    const response = await fetch(request, { cache: "no-cache" }); // asks the server if there is a newer one
    // What cannot be kept, for want of room perhaps, is shown all the same; parts of a file (206) are not kept.
    if (response.status === 200) event.waitUntil(cache.put(request, response.clone()).catch(() => {}));
    return response;
  } catch (error) {
    const kept = await cache.match(request, { ignoreSearch: true });
    if (kept) return kept;
    throw error;
  }
}
