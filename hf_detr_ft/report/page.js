"use strict";
// Colours: the system's until the button is pressed.
const root = document.documentElement;
const theme = document.getElementById("theme");
const systemIsDark = matchMedia("(prefers-color-scheme: dark)");
function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : systemIsDark.matches;
}
function nameTheme() {
  theme.textContent = isDark() ? "Light colours" : "Dark colours";
}
theme.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  nameTheme();
});
systemIsDark.addEventListener("change", nameTheme);
theme.hidden = false;
nameTheme();

// Tables: a click on a column's heading sorts by it.
function keyOf(cell) {
  const data = cell.querySelector("data");
  if (!data) return cell.textContent;
  return data.value === "" ? -Infinity : Number(data.value);
}
function sortBy(table, column, heading) {
  const ascending = heading.getAttribute("aria-sort") === "descending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const rows = Array.from(table.tBodies[0].rows);
  rows.sort((a, b) => {
    const x = keyOf(a.cells[column]), y = keyOf(b.cells[column]);
    const order = typeof x === "string" ? x.localeCompare(y) : x === y ? 0 : x - y;
    return ascending ? order : -order;
  });
  table.tBodies[0].append(...rows);
}
for (const table of document.querySelectorAll("table.sortable")) {
  Array.from(table.tHead.rows[0].cells).forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => sortBy(table, column, heading));
  });
}

// Gallery: the threshold decides which predictions are drawn, and with them which objects are missed. Matching goes by
// descending scores, so what a prediction is does not depend on those below it, and none has to be matched again.
const UNCOUNTED = ["right", "ignored"];
function setUp(gallery) {
  const slider = gallery.querySelector("input[type=range]");
  const kinds = Array.from(gallery.querySelectorAll("input[type=radio]"));
  const cards = Array.from(gallery.querySelectorAll(".card"), (element) => ({
    element,
    counts: element.querySelector(".counts"),
    marks: Array.from(element.querySelectorAll(".mark"), (mark) => ({
      mark, outcome: mark.dataset.outcome, score: Number(mark.dataset.score),
    })),
  }));
  function count(card, threshold) {
    const found = {missed: 0, right: 0, wrong: 0, objects: 0};
    for (const {mark, outcome, score} of card.marks) {
      const above = Math.fround(score) > Math.fround(threshold); // in single precision, as the model and pipeline()
      if (outcome === "object") {
        mark.classList.toggle("missed", !above);
        found.objects += 1;
        found.missed += above ? 0 : 1;
      } else if (outcome !== "crowd") {
        mark.classList.toggle("off", !above);
        if (!above) continue;
        found[outcome] = (found[outcome] || 0) + 1;
        if (!UNCOUNTED.includes(outcome)) found.wrong += 1;
      }
    }
    return found;
  }
  function redraw() {
    const threshold = Number(slider.value);
    const kind = kinds.find((one) => one.checked).value;
    const totals = {};
    let shown = 0;
    gallery.querySelector("output").textContent = threshold.toFixed(3);
    for (const card of cards) {
      const found = count(card, threshold);
      for (const [name, number] of Object.entries(found)) totals[name] = (totals[name] || 0) + number;
      const truth = found.objects ? `${found.objects - found.missed} found, ${found.missed} missed` : "no objects";
      card.counts.textContent = `${truth}, ${found.wrong} wrong`;
      const filtered = kind !== "all" && !found[kind];
      card.element.classList.toggle("filtered", filtered);
      shown += filtered ? 0 : 1;
    }
    for (const one of kinds) {
      one.parentElement.querySelector("b").textContent = one.value === "all" ? cards.length : totals[one.value] || 0;
    }
    gallery.querySelector(".none").hidden = shown > 0;
    const more = gallery.querySelector(".more");
    if (more && kind !== "all") more.open = true;
  }
  for (const {element} of cards) {
    const button = element.querySelector(".enlarge");
    button.hidden = false;
    button.addEventListener("click", () => {
      const large = element.classList.toggle("large");
      button.setAttribute("aria-pressed", String(large));
    });
  }
  const controls = gallery.querySelector(".controls");
  controls.hidden = false;
  controls.addEventListener("input", redraw);
  controls.addEventListener("submit", (event) => event.preventDefault());
  redraw();
}
document.querySelectorAll(".gallery").forEach(setUp);

addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
