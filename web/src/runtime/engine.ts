/** What runs a network: onnxruntime-web in the page, and in Node for the tests. */

/** Numbers of a shape, the last index fastest. */
export interface Tensor {
  readonly data: Float32Array;
  readonly dims: readonly number[];
}

export type Tensors = Record<string, Tensor>;

export interface Session {
  run(inputs: Tensors): Promise<Tensors>;
}

export interface Engine {
  /** A session of an ONNX model with its weights inside. */
  load(model: Uint8Array): Promise<Session>;
}
