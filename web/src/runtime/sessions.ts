/** The graphs of a set of weights, each loaded when it is first run. */
import { Refused } from "../errors";
import type { Weights } from "../weights/bundle";
import { filledGraph } from "../weights/graph";
import type { Engine, Session, Tensors } from "./engine";

export class Sessions {
  private readonly loaded = new Map<string, Promise<Session>>();

  constructor(
    private readonly weights: Weights,
    private readonly engine: Engine,
  ) {}

  async run(graph: string, inputs: Tensors): Promise<Tensors> {
    let session = this.loaded.get(graph);
    if (session === undefined) {
      session = this.load(graph);
      this.loaded.set(graph, session);
    }
    return (await session).run(inputs);
  }

  private load(graph: string): Promise<Session> {
    const model = this.weights.graphs.get(graph);
    if (model === undefined) throw new Refused(`The weights lack the graph ${graph}.`);
    return this.engine.load(filledGraph(model, this.weights.manifest.graphs[graph], this.weights.decoder));
  }
}
