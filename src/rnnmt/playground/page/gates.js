// The gates of each recurrent layer at every word: on average, and cell by cell.

import { choice, el, quoted, word } from "./dom.js";

const COLUMN = 62, LEFT = 40, HEIGHT = 130, PAD = 10;

const MEANING = {
  lstm: {
    forget: "how much of what a cell holds stays. High: remember. Low: wipe it to make room.",
    input: "how much of the new word's content gets into the cells.",
    output: "how much of what the cells hold is shown to the rest of the model at this word.",
  },
  gru: {
    update: "how much of the old state stays. High: remember. Low: replace it by what is new.",
    reset: "how much of the old state is used to work out what is new.",
  },
};

let mapped = null; // the gate whose cells are drawn

export function drawGates(body, answer, variant, redraw) {
  const meanings = MEANING[variant.cell];
  if (!meanings) {
    body.replaceChildren(el("p", {}, `${variant.name} is a plain recurrent network: it has no gates. At ` +
      "every word its whole state is multiplied by the same matrix and squashed, so that what it read " +
      "a few words ago usually fades, whether it matters or not. Choose a variant with LSTM or GRU cells to see " +
      "what gates change."));
    return;
  }
  const names = Object.keys(meanings);
  if (!names.includes(mapped)) mapped = names[0];
  body.replaceChildren(
    el("p", {}, `A gate is a number between 0 (shut) and 1 (open), one for each of the layer's cells and ` +
      `each word. The network computes it anew at every word, so that it can choose what to keep.`),
    el("dl", {}, ...names.flatMap((name) => [
      el("dt", {}, sample(name), `${name} gate`), el("dd", {}, meanings[name])])),
    choice("Cell by cell, show the", names.map((name) => [name, `${name} gate`]), mapped,
      (value) => { mapped = value; redraw(); }),
    ...answer.layers.map((layer) => figure(layer)),
    el("p", { class: "note" }, "How to read it: the lines are averages over all cells; a dip of the " +
      `${names[0]} gate is a word at which the layer makes room. In the map below the lines each row is one ` +
      "cell, those that keep longest on top; full colour is open. Rows in full colour from end to end carry " +
      "something across the whole sentence. The decoder is shown reading the translation of beam search; it begins with a start mark."));
}

function figure(layer) {
  const count = layer.pieces.length, width = LEFT + count * COLUMN;
  const x = (i) => LEFT + (i + 0.5) * COLUMN, y = (value) => PAD + (1 - value) * HEIGHT;
  const svg = el("svg", { width, height: HEIGHT + PAD + 26, role: "img",
    "aria-label": `${layer.name}: average gates over the words` });
  for (const value of [0, 0.5, 1]) {
    svg.append(el("line", { class: "axis", x1: LEFT, x2: width, y1: y(value), y2: y(value) }),
      el("text", { class: "small", x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, String(value)));
  }
  const cross = el("line", { class: "cross", y1: PAD, y2: HEIGHT + PAD });
  svg.append(cross);
  layer.pieces.forEach((piece, i) => svg.append(el("text", {
    class: "word", x: x(i), y: HEIGHT + PAD + 18, "text-anchor": "middle" }, short(word(piece)))));
  for (const [name, gate] of Object.entries(layer.gates)) {
    svg.append(el("polyline", { class: name, points: gate.mean.map((value, i) => `${x(i)},${y(value)}`).join(" ") }),
      ...gate.mean.map((value, i) => el("circle", { class: name, cx: x(i), cy: y(value), r: 3 })));
  }
  const canvas = cells(layer, count);
  const live = el("div", { class: "live", "aria-live": "polite" });
  const scroll = el("div", { class: "scroll" }, el("div", { class: "gate-figure" }, svg, canvas));

  function show(i, cell = null) {
    cross.setAttribute("x1", x(i));
    cross.setAttribute("x2", x(i));
    cross.style.visibility = "visible";
    live.replaceChildren(...say(layer, i, cell));
  }
  scroll.firstChild.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), map = canvas.getBoundingClientRect();
    const i = Math.floor((event.clientX - box.left - LEFT) / COLUMN);
    if (i < 0 || i >= count) return;
    const row = Math.floor((event.clientY - map.top) / map.height * layer.cells);
    show(i, row >= 0 && row < layer.cells ? row : null);
  });
  live.replaceChildren(el("p", {}, halfLives(layer)), el("p", { class: "soft" }, "Point at a word to read its gates."));
  return el("div", { class: "layer" }, el("h3", {}, layer.name),
    layer.mirrored ? el("p", { class: "note" }, "This layer begins at the end of the sentence: time runs from right to left.") : null,
    scroll, live);
}

function say(layer, i, cell) {
  const gates = Object.entries(layer.gates).map(([name, gate]) => `${name} ${gate.mean[i].toFixed(2)}`);
  const kept = layer.gates[layer.keeps].mean[i];
  const lines = [el("p", {}, `Reading ${quoted(layer.pieces[i])}: `, el("strong", {}, gates.join(" · ")),
    `. On average ${Math.round(100 * kept)} % of what the cells held before this word stays.`)];
  if (cell == null) return [...lines, el("p", {}, halfLives(layer))];
  const own = Object.keys(layer.gates).map((name) => {
    const bytes = decoded(layer.gates[name].cells);
    return `${name} ${(bytes[cell * layer.pieces.length + i] / 255).toFixed(2)}`;
  });
  return [...lines, el("p", {}, `Cell ${cell + 1} of ${layer.cells}: ${own.join(" · ")}; over this sentence it ` +
    `holds half of what it had for ${pieces(layer.half_lives[cell])}.`)];
}

// `half_lives` begin with the cell that keeps longest.
function halfLives(layer) {
  const at = (part) => layer.half_lives[Math.min(layer.cells - 1, Math.floor(part * layer.cells))];
  return `In this sentence the middle cell has lost half of what it held after ${pieces(at(0.5))}; ` +
    `one cell in ten keeps half of it for ${pieces(at(0.1))} or longer.`;
}

function pieces(count) {
  if (count >= 100) return "more than 100 pieces";
  return count < 0.95 ? "less than a piece" : `${count.toFixed(1)} pieces`;
}

function cells(layer, count) {
  const height = Math.max(80, Math.min(layer.cells, 160));
  const canvas = el("canvas", { width: count, height: layer.cells, role: "img",
    "aria-label": `${layer.name}: the ${mapped} gate of each cell` });
  Object.assign(canvas.style, { width: `${count * COLUMN}px`, height: `${height}px`, marginLeft: `${LEFT}px` });
  const context = canvas.getContext("2d"), image = context.createImageData(count, layer.cells);
  const [from, to] = ["--surface", "--accent"].map(colour);
  decoded(layer.gates[mapped].cells).forEach((value, i) => {
    for (let k = 0; k < 3; k++) image.data[4 * i + k] = from[k] + (to[k] - from[k]) * value / 255;
    image.data[4 * i + 3] = 255;
  });
  context.putImageData(image, 0, 0);
  return canvas;
}

const decoded = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

// A colour of the style sheet, which are all in hexadecimal, as three numbers.
function colour(name) {
  const digits = getComputedStyle(document.documentElement).getPropertyValue(name).trim().slice(1);
  const wide = digits.length === 3 ? [...digits].map((digit) => digit + digit).join("") : digits;
  return [0, 2, 4].map((i) => parseInt(wide.slice(i, i + 2), 16));
}

const short = (text) => ([...text].length > 8 ? `${[...text].slice(0, 7).join("")}…` : text);

const sample = (name) => el("svg", { width: 30, height: 8 },
  el("polyline", { class: name, points: "1,4 29,4" }));
