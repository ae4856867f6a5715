/** Keeps the page for visits without a connection; the weights are kept by the worker that reads them. */
/** The page's files, and a hash of all of them; set by the build. */
declare const FILES: readonly string[];
declare const VERSION: string;

const scope = globalThis as unknown as ServiceWorkerGlobalScope;
/** Files that only some visitors need. */
const RARE = /\/onnxruntime-gpu\.[a-z.]+$/;
const PREFIX = "sprdiff-page-";
const CACHE = `${PREFIX}${VERSION}`;
/** Headers with which a page may have threads; they are added if its server does not send them. */
const ISOLATED = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
};

scope.addEventListener("install", (event) => {
  const added = caches.open(CACHE).then((cache) => {
    return cache.addAll(["./", ...FILES].map((file) => new Request(file, { cache: "no-cache" })));
  });
  event.waitUntil(added.then(() => scope.skipWaiting()));
});

scope.addEventListener("activate", (event) => {
  const cleaned = caches.keys().then((names) => {
    const old = names.filter((name) => name.startsWith(PREFIX) && name !== CACHE);
    return Promise.all(old.map((name) => caches.delete(name)));
  });
  event.waitUntil(cleaned.then(() => scope.clients.claim()));
});

scope.addEventListener("fetch", (event) => {
  if (event.request.method === "GET") event.respondWith(answered(event.request));
});

async function answered(request: Request): Promise<Response> {
  const cache = await caches.open(CACHE);
  const kept = await cache.match(request, { ignoreSearch: true });
  if (kept === undefined) return RARE.test(request.url) ? fetchedToKeep(request, cache) : fetch(request);
  const headers = new Headers(kept.headers);
  for (const [name, value] of Object.entries(ISOLATED)) headers.set(name, value);
  return new Response(kept.body, { status: kept.status, statusText: kept.statusText, headers });
}

async function fetchedToKeep(request: Request, cache: Cache): Promise<Response> {
  const answer = await fetch(request);
  if (answer.ok) await cache.put(request, answer.clone());
  return answer;
}
