/** The page's side of the worker. */
import type { Answer, Request } from "./messages";

/** Sends requests to a worker; answers to requests that are no longer the latest are left out. */
export class Client {
  private worker = this.start();
  private latest = 0;

  constructor(private readonly heard: (answer: Answer) => void) {}

  ask(request: Omit<Request, "id">): void {
    this.latest++;
    this.worker.postMessage({ id: this.latest, ...request } satisfies Request);
  }

  /** Makes a new worker, whose memory is empty. */
  restart(): void {
    this.worker.terminate();
    this.worker = this.start();
  }

  private start(): Worker {
    const worker = new Worker("worker.js", { type: "module" });
    worker.addEventListener("message", ({ data }: MessageEvent<Answer>) => {
      if (!("id" in data) || data.id === undefined || data.id === this.latest) this.heard(data);
    });
    worker.addEventListener("error", (event) => {
      event.preventDefault();
      this.heard({
        kind: "failed",
        message: "A part of this page cannot be loaded. Please reload it.",
        cut: false,
      });
    });
    return worker;
  }
}
