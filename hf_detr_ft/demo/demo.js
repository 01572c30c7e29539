"use strict";
// The server answers for one photo at a time and remembers none: the page holds the photo and all of its boxes, so that
// thresholds and classes change what is drawn without another run of the models.
const LARGEST_PHOTO = 50e6;
const MANY = 30; // boxes from which on names are shown under the pointer only
const byId = (id) => document.getElementById(id);
const hidden = new Set(); // names of classes
let classes = {};
let panels = [];
let photo = null;
let latest = 0; // number of the newest photo; answers to earlier ones are dropped

function showError(words) {
  byId("error").hidden = !words;
  byId("error").textContent = words;
}

async function ask(path, parameters, content) {
  const address = `${path}?${new URLSearchParams(parameters)}`;
  const request = {method: "POST", body: content, headers: {"Content-Type": "application/octet-stream"}};
  const answer = await fetch(address, request).catch(() => {
    throw new Error("the server does not answer. Start it again.");
  });
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({error: `the server answered ${answer.status}.`}));
    throw new Error(said.error);
  }
  return answer;
}

async function show(file) {
  const turn = ++latest;
  showError("");
  if (file.size > LARGEST_PHOTO) {
    showError(`${file.name}: expected a file of at most 50 MB, found ${Math.round(file.size / 1e6)} MB. Scale the photo down.`);
    return;
  }
  byId("status").textContent = `${file.name}: detecting …`;
  try {
    const answer = await (await ask("detect", {name: file.name}, file)).json();
    if (turn !== latest) return;
    photo = file;
    panels.forEach((panel, index) => panel.take(answer, answer.found[index]));
    listClasses();
    redraw();
    byId("status").textContent = `${file.name}, ${answer.width} × ${answer.height} pixels`;
  } catch (error) {
    if (turn !== latest) return;
    byId("status").textContent = "";
    showError(error.message);
  }
}

// Scores are compared in single precision, as the model and pipeline() have them.
const isAbove = (score, threshold) => Math.fround(score) > Math.fround(threshold);

function makePanel(model, index) {
  const section = byId("model").content.firstElementChild.cloneNode(true);
  const part = (selector) => section.querySelector(selector);
  const [slider, masks, boxes, attention] = ["input", ".masks", ".boxes", ".attention"].map(part);
  const panel = {boxes: [], seconds: 0, size: [1, 1], chosen: null};
  part("h2").textContent = model.name;
  slider.value = model.threshold;
  slider.addEventListener("input", redraw);

  panel.above = () => panel.boxes.filter((box) => isAbove(box.score, slider.value));

  panel.take = (answer, found) => {
    Object.assign(panel, {boxes: found.boxes, seconds: found.seconds, size: [answer.width, answer.height], chosen: null});
    part("img").src = answer.photo;
    part(".photo").style.width = `${75 * answer.width / answer.height}vh`;
    part(".photo").hidden = false;
    part(".hint").hidden = false;
    attention.replaceChildren();
  };

  panel.redraw = () => {
    part("output").textContent = Number(slider.value).toFixed(2);
    if (part(".photo").hidden) return;
    const shown = panel.above().filter((box) => !hidden.has(box.name));
    // Small boxes lie on top, so that each can be clicked.
    const area = ({box}) => (box[2] - box[0]) * (box[3] - box[1]);
    boxes.replaceChildren(...[...shown].sort((a, b) => area(b) - area(a)).map(draw));
    masks.replaceChildren(...shown.filter((found) => found.mask).reverse().map(tint)); // the best one on top
    boxes.classList.toggle("many", shown.length > MANY);
    part(".counts").textContent = `${shown.length} ${shown.length === 1 ? "box" : "boxes"}, found in ${panel.seconds.toFixed(2)} s`;
  };

  function tint(found) {
    const colour = document.createElement("span");
    const mask = `url(${found.mask})`;
    Object.assign(colour.style, {background: classes[found.name].colour, maskImage: mask, webkitMaskImage: mask});
    return colour;
  }

  function draw(found) {
    const [width, height] = panel.size;
    const inside = (value, side) => Math.min(Math.max(value / side, 0), 1) * 100;
    const [left, right] = [0, 2].map((place) => inside(found.box[place], width));
    const [top, bottom] = [1, 3].map((place) => inside(found.box[place], height));
    const button = document.createElement("button");
    const label = document.createElement("span");
    const {colour, ink} = classes[found.name];
    label.textContent = `${found.name} ${found.score.toFixed(2)}`;
    Object.assign(label.style, {background: colour, color: ink});
    button.type = "button";
    button.className = "box";
    button.classList.toggle("high", top < 5);
    button.classList.toggle("right", left > 80);
    button.classList.toggle("chosen", found === panel.chosen);
    button.title = label.textContent;
    Object.assign(button.style, {
      left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%`, borderColor: colour,
    });
    button.append(label);
    button.addEventListener("click", () => attend(found));
    return button;
  }

  async function attend(found) {
    const turn = latest;
    const wanted = () => turn === latest && panel.chosen === found;
    const title = `${found.name} ${found.score.toFixed(2)}`;
    panel.chosen = found;
    panel.redraw();
    attention.textContent = `${title}: its attention is being drawn …`;
    const parameters = {model: index, name: photo.name, box: found.box.join(","), label: found.label, score: found.score};
    try {
      const picture = await (await ask("attention", parameters, photo)).blob();
      if (!wanted()) return;
      const image = document.createElement("img");
      image.alt = `Attention of ${title}`;
      image.addEventListener("load", () => URL.revokeObjectURL(image.src), {once: true});
      image.src = URL.createObjectURL(picture);
      attention.replaceChildren(image);
    } catch (error) {
      if (wanted()) attention.textContent = error.message;
    }
  }

  byId("models").append(section);
  return panel;
}

function listClasses() {
  const best = new Map();
  for (const panel of panels) {
    for (const {name, score} of panel.boxes) best.set(name, Math.max(score, best.get(name) || 0));
  }
  const names = [...best.keys()].sort((a, b) => best.get(b) - best.get(a));
  byId("classes").hidden = names.length < 2;
  document.querySelector(".choices").replaceChildren(...names.map((name) => {
    const [label, box, swatch] = ["label", "input", "span"].map((tag) => document.createElement(tag));
    box.type = "checkbox";
    box.checked = !hidden.has(name);
    box.addEventListener("change", () => {
      if (box.checked) hidden.delete(name);
      else hidden.add(name);
      redraw();
    });
    swatch.className = "swatch";
    swatch.style.background = classes[name].colour;
    label.append(box, " ", swatch, name);
    return label;
  }));
}

function redraw() {
  for (const panel of panels) panel.redraw();
}

for (const button of document.querySelectorAll("#classes button")) {
  button.addEventListener("click", () => {
    for (const name of Object.keys(classes)) {
      if (button.dataset.all) hidden.delete(name);
      else hidden.add(name);
    }
    listClasses();
    redraw();
  });
}

byId("file").addEventListener("change", (event) => {
  const file = event.target.files[0];
  if (file) show(file);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  byId("drop").classList.add("over");
});
document.addEventListener("dragleave", () => byId("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  byId("drop").classList.remove("over");
  const file = event.dataTransfer.files[0];
  if (file) show(file);
});
document.addEventListener("paste", (event) => {
  const file = event.clipboardData.files[0];
  if (file) show(file);
});

fetch("models").then((answer) => answer.json()).then((said) => {
  classes = said.classes;
  document.title = said.models.map((model) => model.name).join(" and ");
  byId("title").textContent = document.title;
  panels = said.models.map(makePanel);
  for (const heading of document.querySelectorAll("h2")) heading.hidden = panels.length === 1; // the title says it
  redraw();
  byId("file").disabled = false;
}).catch(() => showError("The server does not answer. Start it again, and load this page anew."));
