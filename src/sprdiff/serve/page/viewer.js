// Two pictures in one frame, and the line between them.

export class Viewer {
  #frame;
  #urls = { left: null, right: null };

  constructor(frame) {
    this.#frame = frame;
    const range = frame.querySelector("input");
    const move = () => frame.style.setProperty("--at", `${range.value}%`);
    range.addEventListener("input", move);
    move();
  }

  // The frame takes the shape of the picture, and is not wider than it unless it is tiny.
  shape(width, height) {
    this.#frame.style.setProperty("--r", width / height);
    this.#frame.style.setProperty("--w", `${width}px`);
  }

  // Resolves to whether the browser can show it; what was there stays until then.
  async show(side, blob, tag, alt) {
    const url = URL.createObjectURL(blob);
    const trial = new Image();
    trial.src = url;
    try {
      await trial.decode();
    } catch {
      URL.revokeObjectURL(url);
      return false;
    }
    const image = this.#frame.querySelector(`img.${side}`);
    image.src = url;
    image.alt = alt;
    this.label(side, tag);
    if (this.#urls[side]) URL.revokeObjectURL(this.#urls[side]);
    this.#urls[side] = url;
    return true;
  }

  label(side, tag) {
    this.#frame.querySelector(`.tag.${side}`).textContent = tag;
  }

  clear(side) {
    const image = this.#frame.querySelector(`img.${side}`);
    image.removeAttribute("src");
    image.alt = "";
    this.label(side, "");
    if (this.#urls[side]) URL.revokeObjectURL(this.#urls[side]);
    this.#urls[side] = null;
  }

  // One picture alone, without a line.
  set single(on) {
    this.#frame.classList.toggle("single", on);
  }

  set busy(on) {
    this.#frame.setAttribute("aria-busy", String(on));
  }
}
