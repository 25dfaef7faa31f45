"use strict";
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const byId = (id) => document.getElementById(id);
const boxes = all("input[data-choice]");
const marked = all("main [data-choice]"); // spans in the texts, and items of the lists of rejects
const articles = all("article");
const rejects = all(".rejects li");
let current = -1; // the reject that was stepped to last

// filters: what is unchecked is plain text, and passages with nothing left to show are hidden
function filter() {
  const off = new Set(boxes.filter((box) => !box.checked).map((box) => box.dataset.choice));
  for (const one of marked) {
    one.classList.toggle("off", off.has(one.dataset.choice));
    if (one.hasAttribute("tabindex") && one.tagName === "MARK") one.tabIndex = off.has(one.dataset.choice) ? -1 : 0;
  }
  for (const article of articles)
    article.hidden = off.size > 0 && !article.querySelector("[data-choice]:not(.off)");
  const left = articles.filter((article) => !article.hidden).length;
  byId("shown").hidden = off.size === 0;
  byId("shown").textContent = `${left} of ${articles.length} passages have something that is selected`;
  showStep();
}

function check(kind, checked, only) {
  for (const box of boxes)
    if (box.dataset.choice[0] === kind || only) box.checked = only ? box.dataset.choice === only : checked;
  filter();
}

document.addEventListener("change", (event) => event.target.matches("input[data-choice]") && filter());
document.addEventListener("click", (event) => {
  const { all: every, none, only } = event.target.dataset;
  if (every) check(every, true);
  if (none) check(none, false);
  if (only) check(only[0], false, only);
});
byId("find").addEventListener("input", (event) => {
  const wanted = event.target.value.toLowerCase();
  for (const row of all("[data-kind=t] li"))
    row.hidden = !row.querySelector("bdi").textContent.toLowerCase().includes(wanted);
});

// the bubble with offsets and score, of the span under the pointer or in focus
const tip = byId("tip");
let shown = null;
function show(mark) {
  shown = mark;
  const { key, start, end, score, choice } = mark.dataset;
  for (const part of all("mark.lit")) part.classList.remove("lit");
  const parts = all(`mark[data-key="${key}"]`);
  for (const part of parts) part.classList.add("lit");
  const name = document.createElement("bdi");
  const whole = choice[0] === "t" ? document.querySelector(`[data-choice="${choice}"] ~ bdi`) : parts.at(-1).lastChild;
  name.textContent = whole.textContent; // beside a span, a long type is shortened
  const numbers = document.createElement("span");
  numbers.textContent = `[${start}:${end}]` + (score === undefined ? "" : `  score ${Number(score).toFixed(3)}`);
  tip.replaceChildren(name, numbers);
  tip.hidden = false;
  mark.setAttribute("aria-describedby", "tip");
  place();
}
function place() {
  const box = shown.getClientRects()[0];
  const width = document.documentElement.clientWidth;
  tip.style.left = `${Math.max(8, Math.min(box.left, width - tip.offsetWidth - 8))}px`;
  const above = box.top - tip.offsetHeight - 6;
  tip.style.top = `${above < 4 ? box.bottom + 12 : above}px`;
}
function hide() {
  shown = null;
  tip.hidden = true;
  for (const part of all("mark.lit")) part.classList.remove("lit");
}
const spanOf = (event) => event.target.closest?.("main mark:not(.off)");
for (const [name, leave] of [["pointerover", "pointerout"], ["focusin", "focusout"]]) {
  document.addEventListener(name, (event) => spanOf(event) && show(spanOf(event)));
  document.addEventListener(leave, (event) => {
    const focused = document.activeElement?.closest("main mark:not(.off)");
    if (name === "pointerover" && focused) show(focused);
    else if (!tip.contains(event.relatedTarget)) hide();
  });
}
document.addEventListener("scroll", () => shown && place(), { passive: true });

// steps through rejects and passages
const visible = (items) => items.filter((one) => !one.matches(".off") && !one.closest("[hidden]"));
function goTo(item) {
  item.scrollIntoView({ block: item.tagName === "ARTICLE" ? "start" : "center" });
  item.focus({ preventScroll: true });
}
function showStep() {
  const items = visible(rejects);
  byId("steps").hidden = rejects.length === 0;
  const place = items.indexOf(rejects[current]);
  byId("step").textContent = place < 0 ? `${items.length} ${byId("step").dataset.noun}${items.length === 1 ? "" : "s"}` : `${place + 1} of ${items.length}`;
  if (place >= 0) byId("step").append(": ", rejects[current].querySelector("b").textContent);
}
function step(direction) {
  const items = visible(rejects);
  if (!items.length) return;
  const place = items.indexOf(rejects[current]);
  const next = items[place < 0 ? (direction > 0 ? 0 : items.length - 1) : (place + direction + items.length) % items.length];
  current = rejects.indexOf(next);
  for (const one of rejects) one.classList.toggle("current", one === next);
  goTo(next);
  showStep();
}
function stepPassage(direction) {
  const items = visible(articles);
  const here = document.activeElement?.closest("article");
  const place = here ? items.indexOf(here) : items.findIndex((one) => one.getBoundingClientRect().bottom > 80) - direction;
  const next = items[Math.max(0, Math.min(items.length - 1, place + direction))];
  if (next) goTo(next);
}
byId("next").addEventListener("click", () => step(1));
byId("previous").addEventListener("click", () => step(-1));

const keys = {
  n: () => step(1), p: () => step(-1), j: () => stepPassage(1), k: () => stepPassage(-1),
  a: () => { byId("find").value = ""; byId("find").dispatchEvent(new Event("input")); for (const box of boxes) box.checked = true; filter(); },
  "/": () => { byId("find").closest("details").open = true; byId("find").focus(); },
};
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") { hide(); if (event.target === byId("find")) byId("find").blur(); }
  const typing = event.target.matches("input:not([type=checkbox])");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !byId("keys").checked || !keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
});

// on a narrow screen the filters would push the passages away
if (matchMedia("(max-width: 800px)").matches) for (const panel of all("details.panel")) panel.open = false;
for (const panel of all("details.panel")) if (panel.dataset.kind && !panel.querySelector("li")) panel.hidden = true;
showStep();
