"use strict";
// The page is whole without this: it only fades what is not asked for and opens what is linked to.
const form = document.querySelector("form.filter");
const boxes = [...form.querySelectorAll("input[type=checkbox]")];
// Cell -> its slots in the tables. The document is searched once: there may be thousands of both.
const slotsOf = new Map();
for (const slot of document.querySelectorAll("[data-cell]")) {
  slotsOf.set(slot.dataset.cell, [...(slotsOf.get(slot.dataset.cell) || []), slot]);
}
const details = [...document.querySelectorAll("details.cell")].map((element) => ({
  element,
  // A cell's own heading says which quantizer it is of; its closed body holds all the rest.
  text: (element.parentElement.querySelector("h3").textContent + " " + element.textContent).toLowerCase(),
  slots: slotsOf.get(element.querySelector(".body").id) || [],
}));

function filter() {
  const words = form.querySelector("input[type=search]").value.toLowerCase().split(/\s+/).filter(Boolean);
  const wanted = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
  let shown = 0;
  for (const { element, text, slots } of details) {
    const match = wanted.has(element.dataset.verdict) && words.every((word) => text.includes(word));
    element.hidden = !match;
    for (const slot of slots) slot.classList.toggle("faded", !match);
    shown += match;
  }
  for (const section of document.querySelectorAll("section.cells")) {
    section.hidden = !section.querySelector("details:not([hidden])");
  }
  form.querySelector("output").textContent = `${shown} of ${details.length} cells`;
}

function reveal() {
  const target = document.getElementById(location.hash.slice(1));
  const folded = target && target.closest("details.cell, details.of-release");
  if (!folded) return;
  folded.hidden = false;
  folded.parentElement.hidden = false;
  folded.open = true;
  (folded.matches(".cell") ? folded : target).scrollIntoView();
}

form.hidden = false;
form.addEventListener("input", filter);
form.addEventListener("submit", (event) => event.preventDefault());
window.addEventListener("hashchange", reveal);
filter();
reveal();
