/** onnxruntime-web as the engine of a worker: WebGPU where there is one that computes what WebAssembly computes. */
import * as ort from "onnxruntime-web/webgpu";
import type { Engine, Session, Tensor, Tensors } from "./engine";

/** More threads than these gain little and keep a phone's cores from the page. */
const MOST_THREADS = 8;
const WASM = "wasm";
const WEBGPU = "webgpu";

/** Threads share memory, which browsers allow only to pages that are isolated (COOP and COEP headers). */
export const THREADS = globalThis.crossOriginIsolated
  ? Math.min(navigator.hardwareConcurrency || 1, MOST_THREADS)
  : 1;

/** Prepares onnxruntime: `binary` is its WebAssembly, `glue` the address of the script that belongs to it. */
export function startRuntime(binary: Uint8Array<ArrayBuffer>, glue: string): void {
  ort.env.logLevel = "fatal";
  ort.env.wasm.wasmBinary = binary;
  ort.env.wasm.wasmPaths = { mjs: glue };
  ort.env.wasm.numThreads = THREADS;
}

export const plainEngine: Engine = engineOn(WASM);
export const gpuEngine: Engine = engineOn(WEBGPU);

/** Whether there is a graphics processor; software that plays one is slower than WebAssembly. */
export async function hasGpu(): Promise<boolean> {
  try {
    const adapter = await navigator.gpu?.requestAdapter();
    return Boolean(adapter) && !adapter?.info?.isFallbackAdapter;
  } catch {
    return false;
  }
}

function engineOn(provider: typeof WASM | typeof WEBGPU): Engine {
  return {
    async load(model) {
      const options = {
        executionProviders: [provider],
        graphOptimizationLevel: "all",
        logSeverityLevel: 4,
      } as const;
      return new OnnxSession(await ort.InferenceSession.create(model, options));
    },
  };
}

class OnnxSession implements Session {
  constructor(private readonly session: ort.InferenceSession) {}

  async run(inputs: Tensors): Promise<Tensors> {
    const feeds = mapped(inputs, ({ data, dims }: Tensor) => new ort.Tensor("float32", data, dims));
    const outputs = await this.session.run(feeds);
    return mapped({ ...outputs }, ({ data, dims }) => ({ data: data as Float32Array, dims }));
  }
}

function mapped<From, To>(values: Record<string, From>, change: (value: From) => To): Record<string, To> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, change(value)]));
}
