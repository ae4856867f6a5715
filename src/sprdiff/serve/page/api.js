// The service, as functions. Addresses are relative, so that the page works below any path of a proxy.

export class Refused extends Error {}

const wait = (seconds, signal) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });

async function reach(address, options) {
  try {
    return await fetch(address, options);
  } catch (error) {
    throw options?.signal?.aborted ? error : new Refused("The service cannot be reached.");
  }
}

async function refusal(response) {
  const kind = response.headers.get("Content-Type") ?? "";
  const said = kind.includes("json") ? (await response.json()).error : null;
  return new Refused(
    said ? `${said[0].toUpperCase()}${said.slice(1)}.` : `The service answered ${response.status}.`,
  );
}

// A blob, and what the headers say of it. While the service is full, the request waits for its turn.
async function post(path, parameters, body, signal) {
  const address = `${path}?${new URLSearchParams(parameters)}`;
  const headers = { "Content-Type": "application/octet-stream" };
  for (let trial = 0; ; trial++) {
    const response = await reach(address, { method: "POST", body, headers, signal });
    if (response.ok) {
      const about = (name) => response.headers.get(`Sprdiff-${name}`) ?? "";
      return { blob: await response.blob(), about, number: (name) => Number(about(name)) };
    }
    if (response.status !== 429 || trial === 10) throw await refusal(response);
    await wait(Number(response.headers.get("Retry-After")) || 2, signal);
  }
}

export const encode = (photo, bytes, signal) =>
  post("encode", { max_bytes: bytes, or_smallest: true }, photo, signal);

export const decode = (file, realism, signal) => post("decode", realism === undefined ? {} : { realism }, file, signal);

export const compare = (photo, codec, bytes, signal) =>
  post("compare", { codec, max_bytes: bytes, or_smallest: true }, photo, signal);

export async function health() {
  const response = await reach("healthz");
  if (!response.ok) throw await refusal(response);
  return response.json();
}

// Of calls that overtake each other only the last one counts; the others are aborted and never come back.
export function latest(work) {
  let current = null;
  const call = async (...given) => {
    current?.abort();
    const mine = (current = new AbortController());
    try {
      const result = await work(mine.signal, ...given);
      return mine.signal.aborted ? new Promise(() => {}) : result;
    } catch (error) {
      if (mine.signal.aborted) return new Promise(() => {});
      throw error;
    }
  };
  call.abort = () => current?.abort();
  return call;
}
