/** The elements of the page, and what they show. */
import type { Item } from "./items";
import type { Facts } from "./messages";

function element<T extends HTMLElement = HTMLElement>(id: string): T {
  return document.getElementById(id) as T;
}

export const controls = {
  file: element<HTMLInputElement>("file"),
  more: element<HTMLInputElement>("more"),
  realism: element<HTMLInputElement>("realism"),
  seed: element<HTMLInputElement>("seed"),
  another: element<HTMLButtonElement>("another"),
  save: element<HTMLButtonElement>("save"),
  partial: element<HTMLButtonElement>("partial"),
  pastes: [element<HTMLButtonElement>("paste"), element<HTMLButtonElement>("paste-more")],
};

const frame = element("frame");
const canvas = element<HTMLCanvasElement>("canvas");
const alert = element("alert");

/** Shows a sentence above everything else, or none. */
export function complain(sentence: string, cut = false): void {
  (alert.firstElementChild as HTMLElement).textContent = sentence;
  controls.partial.hidden = !cut;
  alert.hidden = sentence === "";
}

/** Says something to those who do not see the page. */
export function announce(sentence: string): void {
  element("status").textContent = sentence;
}

export function showAbout(sentence: string): void {
  element("about").textContent = sentence;
}

/** The place for a photograph instead of the place to drop one; focus stays with the page. */
export function openWork(): void {
  const drop = element("drop");
  const lost = drop.contains(document.activeElement);
  drop.hidden = true;
  element("work").hidden = false;
  document.body.classList.add("open");
  if (lost) controls.realism.focus({ preventScroll: true });
}

/** Shows what is known about a file before it is decoded, and removes the picture before it. */
export function showItem(item: Item): void {
  canvas.width = canvas.height = 1;
  canvas.setAttribute("aria-label", "Nothing is decoded yet");
  element("title").textContent = item.name;
  element("bytes").textContent = item.data.length.toLocaleString("en");
  element("summary").textContent = "";
  element("facts").replaceChildren();
  showRemark(item.remark);
  controls.save.disabled = true;
}

export function showRemark(remark: string): void {
  element("remark").textContent = remark;
  element("remark").hidden = remark === "";
}

export function showFacts(item: Item, facts: Facts): void {
  const { width, height, codedWidth, codedHeight } = facts;
  frame.style.setProperty("--r", String(width / height));
  frame.style.setProperty("--w", `${width}px`);
  const bits = ((8 * item.data.length) / (width * height)).toFixed(4);
  const rows: [string, string][] = [
    ["Picture", `${width} × ${height}${facts.grey ? ", grey" : ""}`],
    ["Quality", `${((facts.level * 100) / 255).toFixed(1)} of 100`],
  ];
  if (codedWidth !== width || codedHeight !== height)
    rows.push(["Coded as", `${codedWidth} × ${codedHeight}`]);
  if (!facts.whole) rows.push(["Arrived", `${Math.floor(100 * facts.known)} % of the symbols`]);
  element("facts").replaceChildren(
    ...rows.flatMap(([term, text]) => [withText("dt", term), withText("dd", text)]),
  );
  element("summary").textContent = `${bits} bits per pixel`;
  if (!facts.whole && item.remark === "") showRemark("Only a part of the file is there, or it is damaged.");
}

export function showDial(realism: number): void {
  controls.realism.value = String(realism);
  element("dial").textContent = realism.toFixed(2);
  const text = `${realism.toFixed(2)}, from 0 faithful to 1 sharp and partly invented`;
  controls.realism.setAttribute("aria-valuetext", text);
}

/** Shows progress from 0 to 1; undefined: nothing is in progress. */
export function showProgress(done: number | undefined): void {
  frame.setAttribute("aria-busy", String(done !== undefined));
  const bar = element<HTMLProgressElement>("progress");
  if (done === undefined || done === 0) bar.removeAttribute("value");
  else bar.value = done;
}

export function showPicture(pixels: Uint8ClampedArray<ArrayBuffer>, facts: Facts, label: string): void {
  canvas.width = facts.width;
  canvas.height = facts.height;
  canvas.getContext("2d")?.putImageData(new ImageData(pixels, facts.width, facts.height), 0, 0);
  canvas.setAttribute("aria-label", label);
}

/** The list of opened files; `choose` is called with the place of the one that is wanted. */
export function showList(items: readonly Item[], current: number, choose: (place: number) => void): void {
  const list = element("list");
  list.hidden = items.length < 2;
  const entries = items.map((item, place) => {
    const button = withText("button", item.name) as HTMLButtonElement;
    button.type = "button";
    button.className = "button";
    button.setAttribute("aria-current", String(place === current));
    button.addEventListener("click", () => choose(place));
    const entry = document.createElement("li");
    entry.append(button);
    return entry;
  });
  list.firstElementChild?.replaceChildren(...entries);
}

export function showDropping(over: boolean): void {
  document.body.classList.toggle("over", over);
}

function withText(kind: string, text: string): HTMLElement {
  const made = document.createElement(kind);
  made.textContent = text;
  return made;
}
