// The attention weights of one translation, as words that light up and as a map.

import { choice, el, percent, quoted, word } from "./dom.js";

let shown = "beam"; // or "greedy"

export function drawAlignment(body, answer, variant, redraw) {
  const { pieces, alignment } = answer[shown];
  if (!alignment) {
    body.replaceChildren(el("p", {},
      `${variant.name} has no attention. Its encoder squeezes the whole sentence into one list of ` +
      `${variant.hidden} numbers, and the decoder sees nothing else: there is no “where” to show. ` +
      "That is why long sentences go wrong here first. Choose a variant with attention to see it look."));
    return;
  }
  const source = answer.source;
  const live = el("div", { class: "live", "aria-live": "polite" });
  const sourceWords = source.map((piece, j) => span(piece, () => fromSource(j)));
  const targetWords = pieces.map((piece, i) => span(piece, () => fromTarget(i)));
  const columns = source.map((piece) => el("th", { scope: "col" }, el("div", {}, word(piece))));
  const rows = pieces.map((piece) => el("th", { scope: "row" }, word(piece)));
  const cells = alignment.map((weights, i) => weights.map((weight, j) => {
    const cell = el("td", { class: weight >= 0.6 ? "strong" : null,
      onpointerenter: () => fromTarget(i, j), onclick: () => fromTarget(i, j) },
    weight >= 0.095 ? Math.round(100 * weight) : "");
    cell.style.background = shade(weight);
    return cell;
  }));

  function clear() {
    for (const node of [...sourceWords, ...targetWords, ...columns, ...rows, ...cells.flat()])
      node.classList.remove("on");
    for (const node of [...sourceWords, ...targetWords]) node.style.background = "";
  }
  function fromTarget(i, j = null) {
    clear();
    targetWords[i].classList.add("on");
    rows[i].classList.add("on");
    alignment[i].forEach((weight, k) => { sourceWords[k].style.background = shade(weight, 50); });
    if (j != null) {
      columns[j].classList.add("on");
      cells[i][j].classList.add("on");
    }
    live.replaceChildren(el("p", {}, `To write ${quoted(pieces[i])} it looked at `,
      ...ranked(alignment[i], source), "."));
  }
  function fromSource(j) {
    clear();
    sourceWords[j].classList.add("on");
    columns[j].classList.add("on");
    const weights = alignment.map((row) => row[j]);
    weights.forEach((weight, i) => { targetWords[i].style.background = shade(weight, 50); });
    live.replaceChildren(el("p", {}, `${quoted(source[j])} was looked at while it wrote `,
      ...ranked(weights, pieces), "."));
  }

  body.replaceChildren(
    el("p", {}, "Before each word that it writes, the decoder spreads its attention over the source " +
      "words: the weights of one row add up to 100 %. Point at a word, or at a cell."),
    choice("Translation of", [["beam", "beam search"], ["greedy", "greedy search"]], shown,
      (value) => { shown = value; redraw(); }),
    el("div", { class: "strip" },
      el("div", {}, el("b", {}, "source"), ...spaced(sourceWords)),
      el("div", {}, el("b", {}, "translation"), ...spaced(targetWords))),
    el("div", { class: "scroll tall" }, el("table", { class: "map" },
      el("thead", {}, el("tr", {}, el("td"), ...columns)),
      el("tbody", {}, ...cells.map((row, i) => el("tr", {}, rows[i], ...row))))),
    live,
    el("p", { class: "note" }, "How to read it: each row is a word of the translation, each column one of " +
      "the source; numbers are per cent. A diagonal of full colour means that the word order is the same; where it " +
      "bends, the languages differ, as in “black cat”, “chat noir”. A row of faint cells is a word that " +
      "the decoder writes from what it wrote before, looking nowhere in particular; so may be one of full colour on “end”. Attention can also " +
      "stand beside the word one would expect: the encoder's states have read their neighbours too. A " +
      "hyphen begins the rest of a word that was cut into pieces."));
  fromTarget(0);
}

// With spaces between, at which a line may break.
const spaced = (words) => words.flatMap((node) => [node, " "]);

function span(piece, enter) {
  return el("span", { onpointerenter: enter, onclick: enter }, word(piece));
}

const shade = (weight, most = 100) =>
  `color-mix(in srgb, var(--accent) ${(most * weight).toFixed(1)}%, var(--surface))`;

// The weightiest pieces, at most four, none below 3 %.
function ranked(weights, pieces) {
  const order = weights.map((weight, i) => [weight, i]).sort((a, b) => b[0] - a[0]);
  const top = order.filter(([weight], n) => n === 0 || weight >= 0.03).slice(0, 4);
  return top.flatMap(([weight, i], n) =>
    [n ? ", " : "", el("strong", {}, quoted(pieces[i])), ` ${percent(weight)}`]);
}
