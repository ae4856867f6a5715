"use strict";
// The strips hold every picture once; a viewer takes its two from there.
for (const scene of document.querySelectorAll(".scene")) {
  const find = (selector) => scene.querySelector(selector);
  const shots = [...scene.querySelectorAll(".shot")];
  const [left, right, rate] = ["left", "right", "rate"].map((name) => find(`select.${name}`));
  const frame = find(".frame");
  const range = find("input");

  const option = (select, value, label) => {
    const made = document.createElement("option");
    made.value = value;
    made.textContent = label;
    select.append(made);
  };
  const name = (shot) => shot.querySelector("strong").textContent;
  const has = (select, value) => [...select.options].some((made) => made.value === value);

  function fill() {
    const shown = shots.filter((shot) => !shot.dataset.rate || shot.dataset.rate === rate.value);
    for (const shot of shots) shot.hidden = !shown.includes(shot);
    for (const [select, wanted] of [
      [left, scene.dataset.left],
      [right, scene.dataset.right],
    ]) {
      const before = select.value || wanted;
      select.replaceChildren();
      for (const shot of shown) option(select, shot.dataset.key, name(shot));
      if (has(select, before)) select.value = before;
    }
    show();
  }

  function show() {
    for (const [select, side] of [
      [left, "left"],
      [right, "right"],
    ]) {
      const shot = shots.find((s) => !s.hidden && s.dataset.key === select.value);
      const image = find(`.frame img.${side}`);
      image.src = shot.querySelector("img").src;
      image.alt = shot.querySelector("img").alt;
      const caption = shot.querySelector(".caption").textContent;
      find(`.tag.${side}`).textContent = caption ? `${name(shot)}: ${caption}` : name(shot);
    }
    for (const shot of shots)
      shot.setAttribute("aria-pressed", String(!shot.hidden && shot.dataset.key === right.value));
  }

  const move = () => frame.style.setProperty("--at", `${range.value}%`);
  for (const value of new Set(shots.map((shot) => shot.dataset.rate).filter(Boolean)))
    option(rate, value, value);
  for (const select of [left, right]) select.addEventListener("change", show);
  for (const shot of shots) {
    shot.addEventListener("click", () => {
      right.value = shot.dataset.key;
      show();
    });
  }
  rate.addEventListener("change", fill);
  range.addEventListener("input", move);
  find(".viewer").hidden = false;
  fill();
  move();
}

// A codec in the legend, pointed at or pressed, stands out in every plot.
const curves = [...document.querySelectorAll(".plot [id]")].filter((part) => /-c\d+$/.test(part.id));
const buttons = [...document.querySelectorAll(".legend button")];
function highlight(name) {
  for (const part of curves) part.classList.toggle("faded", name !== null && !part.id.endsWith(`-${name}`));
}
const pressed = () =>
  buttons.find((button) => button.getAttribute("aria-pressed") === "true")?.dataset.curve ?? null;
for (const button of buttons) {
  button.addEventListener("mouseenter", () => highlight(button.dataset.curve));
  button.addEventListener("mouseleave", () => highlight(pressed()));
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") === "true";
    for (const other of buttons) other.setAttribute("aria-pressed", String(other === button && !on));
    highlight(pressed());
  });
}
