// The service worker: the newest while there is a server, what was last seen while there is none.

const FILES = __FILES__;
// Of this folder: other pages of the same host may have a version of their own.
const FAMILY = `kerasdet ${new URL("./", self.location).href} `;
const CACHE = FAMILY + "__VERSION__";
// How long a server is waited for where there is a kept file to show, in milliseconds.
const PATIENCE = 4000;
// Others may serve at this address too, before or after: what is not the page's own is none of its business.
const at = (file) => new URL(file, self.location).href;
const OWN = new Set([...FILES, "index.html", "model.tflite"].map(at));

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
  const old = (await caches.keys()).filter((name) => name.startsWith(FAMILY) && name !== CACHE);
  const cache = await caches.open(CACHE);
  for (const name of old) {
    // What could not be fetched anew, on a weak connection perhaps.
    const model = await (await caches.open(name)).match("model.tflite");
    if (model && !(await cache.match("model.tflite"))) await cache.put("model.tflite", model);
    await caches.delete(name);
  }
  await self.clients.claim();
}

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const [address] = request.url.split(/[?#]/);
  if (request.method === "GET" && OWN.has(address)) event.respondWith(answer(event));
});

async function answer(event) {
  const { request } = event;
  const [address] = request.url.split(/[?#]/);
  const cache = await caches.open(CACHE);
  // Asks the server if there is a newer one.
  const fresh = fetch(request, { cache: "no-cache" }).then((response) => {
    // The detector alone: a page of a newer version names scripts that this one's files are without.
    // What cannot be kept, for want of room perhaps, is shown all the same; parts of a file (206) are not kept.
    if (address === at("model.tflite") && response.status === 200) {
      event.waitUntil(cache.put(address, response.clone()).catch(() => {}));
    }
    return response;
  });
  const kept = await cache.match(address === at("index.html") ? at("./") : address);
  if (!kept) return fresh;
  const later = new Promise((resolve) => setTimeout(resolve, PATIENCE, kept));
  // A server that is in trouble (5xx) is as good as none.
  const newest = fresh.then(
    (response) => (response.status < 500 ? response : kept),
    () => kept,
  );
  event.waitUntil(newest);
  return Promise.race([newest, later]);
}
