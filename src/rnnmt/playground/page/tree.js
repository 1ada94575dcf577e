// The beam as it was at every step: a column holds the hypotheses that were alive, best on top.

import { el, logProbability, percent, quoted, spelled, word } from "./dom.js";

const ROW = 46, TOP = 26, HEIGHT = 26, GAP = 26;

export function drawTree(body, answer, question, force) {
  const { nodes, best, greedy } = answer.tree;
  const onBest = new Set(best), onGreedy = new Set(greedy);
  const live = el("div", { class: "live", "aria-live": "polite" });
  const { svg, boxes, edges } = picture(nodes, answer.forced, onBest, onGreedy);
  let current = best.at(-1);
  const tell = () => live.replaceChildren(...describe(nodes, current, answer, question, force));

  function show(index) {
    current = index;
    const path = new Set(pathTo(nodes, index));
    boxes.forEach((box, i) => box.classList.toggle("on", i === index));
    edges.forEach((edge, i) => edge?.classList.toggle("on", path.has(i)));
    tell();
  }
  boxes.forEach((box, i) => {
    box.addEventListener("pointerenter", () => show(i));
    box.addEventListener("click", () => show(i));
  });
  svg.addEventListener("keydown", (event) => {
    const next = neighbour(nodes, current, event.key);
    if (next == null) return;
    event.preventDefault();
    show(next);
    boxes[next].scrollIntoView({ block: "nearest", inline: "nearest" });
  });

  body.replaceChildren(
    el("p", {}, `At every step each living hypothesis is extended by every word of the vocabulary; of ` +
      `all these, the ${question.beam} likeliest stay. A hypothesis dies when each of its extensions ` +
      "is less likely than those. Finished ones keep their place, so that fewer stay in play. Point at a word " +
      "to see what it competed with; below a word stands log p of everything up to there."),
    legend(question.beam),
    el("div", { class: "scroll" }, svg),
    live,
    el("p", {}, verdict(answer, question)));
  tell();
}

function picture(nodes, forced, onBest, onGreedy) {
  const steps = Math.max(...nodes.map((node) => node.time));
  const widths = Array.from({ length: steps + 1 }, (_, time) => Math.max(...nodes
    .filter((node) => node.time === time).map((node) => 22 + 8 * Math.min([...word(node.piece)].length, 14))));
  const left = [4];
  widths.forEach((width, time) => left.push(left[time] + width + GAP));
  const places = Math.max(...nodes.map((node) => node.place)) + 1;
  const width = left.at(-1) - GAP + 6, height = TOP + places * ROW;
  const svg = el("svg", { width, height, viewBox: `0 0 ${width} ${height}`, tabindex: 0, role: "img",
    "aria-label": "The beam as a tree. The arrow keys walk through it; what is said of each word stands below." });
  if (forced) {
    svg.append(el("rect", { class: "band", x: left[1] - 8, y: 0, width: left[forced + 1] - left[1] - GAP + 16, height }),
      el("text", { class: "small", x: left[1], y: height - 4 }, "forced by you"));
  }
  for (let time = 1; time <= steps; time++)
    svg.append(el("text", { class: "small", x: left[time], y: 14 }, `step ${time}`));
  const y = (node) => TOP + node.place * ROW;
  const kinds = (i) => `${onBest.has(i) ? " best" : ""}${onGreedy.has(i) ? " greedy" : ""}`;
  const edges = nodes.map((node, i) => {
    if (node.parent < 0) return null;
    const from = nodes[node.parent];
    const [x0, y0, x1, y1] = [left[from.time] + widths[from.time], y(from) + HEIGHT / 2, left[node.time], y(node) + HEIGHT / 2];
    const middle = (x0 + x1) / 2;
    return el("path", { class: `edge${kinds(i)}`, d: `M${x0},${y0} C${middle},${y0} ${middle},${y1} ${x1},${y1}` });
  });
  const boxes = nodes.map((node, i) => {
    const letters = [...word(node.piece)];
    const label = letters.length > 14 ? `${letters.slice(0, 13).join("")}…` : letters.join("");
    const w = widths[node.time], x = left[node.time];
    const mark = { dropped: " ✕", ended: " ■" }[node.fate] ?? "";
    return el("g", { class: `node ${node.fate}${kinds(i)}` },
      el("rect", { class: "reach", x, y: y(node), width: w, height: HEIGHT + 14 }),
      el("rect", { x, y: y(node), width: w, height: HEIGHT, rx: node.fate === "ended" ? 2 : 7 }),
      el("text", { class: "word", x: x + w / 2, y: y(node) + 18, "text-anchor": "middle" }, label + mark),
      el("text", { class: "small", x: x + w / 2, y: y(node) + HEIGHT + 12, "text-anchor": "middle" },
        node.parent < 0 ? "" : logProbability(node.log_prob)));
  });
  svg.append(...edges.filter(Boolean).sort((a, b) => a.classList.length - b.classList.length), ...boxes);
  return { svg, boxes, edges };
}

function describe(nodes, index, answer, question, force) {
  const node = nodes[index];
  const pieces = pathTo(nodes, index).map((i) => nodes[i].piece);
  const text = spelled(pieces);
  const lines = [];
  if (node.parent < 0) {
    lines.push(el("p", {}, "Here the search begins, with nothing written yet."));
  } else {
    lines.push(el("p", {}, el("strong", {}, `“${text ?? pieces.map(word).join(" ")}”`),
      node.piece === "<EOS>" ? " and the end" : "",
      ` · step ${node.time}, place ${node.place + 1} · this word ${percent(Math.exp(node.step))}`,
      ` · all of it: log p ${logProbability(node.log_prob)} (${percent(Math.exp(node.log_prob))})`));
  }
  lines.push(el("p", {}, fate(node, answer, question, index)));
  if (node.offers.length) {
    lines.push(el("p", { class: "soft" }, "Offered next: " + node.offers
      .map(([piece, step]) => `${word(piece)} ${percent(Math.exp(step ?? -Infinity))}`).join(" · ")));
  }
  if (text && node.time > 0 && node.piece !== "<EOS>") {
    lines.push(el("p", {}, el("button", { type: "button", onclick: () => force(text) },
      `Force every variant to start with “${text}”`)));
  }
  return lines;
}

function fate(node, answer, question, index) {
  const score = logProbability(node.score);
  const divided = question.length_penalty
    ? ` Divided by its length (${node.time} to the power ${question.length_penalty}), its score is ${score}.` : "";
  const isBest = index === answer.tree.best.at(-1);
  if (isBest && node.fate === "ended") return `The winner: no finished hypothesis has a better score.${divided}`;
  if (node.fate === "ended")
    return `Finished, but another one has the better score (${logProbability(answer.beam.score)}).${divided}`;
  if (node.fate === "dropped") {
    if (!node.loser || node.bar == null) return "Died here: the model gave it no way to go on.";
    return `Died here: its best extension, ${quoted(node.loser[0])}, came to log p ${logProbability(node.loser[1])}; ` +
      `the weakest that could stay had ${logProbability(node.bar)}.`;
  }
  if (node.fate === "open") {
    return answer.beam.ended
      ? "Still unfinished when the search stopped, since it could not beat the best finished one any more, or its place was taken."
      : "Cut off: the model had found no end when the translation reached its greatest length.";
  }
  return "It lived on: at least one of its extensions stayed in the beam.";
}

// What beam search gained over greedy search, in words.
function verdict(answer, question) {
  if (question.beam === 1) return "With one place, beam search is greedy search. Give it more to see what it misses.";
  const { greedy, beam, tree } = answer;
  const differs = beam.pieces.findIndex((piece, i) => piece !== greedy.pieces[i]);
  if (differs < 0 && beam.pieces.length === greedy.pieces.length)
    return "Greedy search found the same translation: at every step the likeliest word was also part of the best whole.";
  const at = differs < 0 ? beam.pieces.length : differs;
  const before = tree.nodes[tree.best[at]];
  const of = (piece) => {
    const offer = before?.offers.find(([name]) => name === piece);
    return offer ? ` (${percent(Math.exp(offer[1]))})` : "";
  };
  const ours = beam.pieces[at], theirs = greedy.pieces[at];
  if (ours == null || theirs == null) return "One of the two searches reached the greatest length before it found an end.";
  const totals = `Its whole came to log p ${logProbability(greedy.log_prob)}, the winner's to ${logProbability(beam.log_prob)}. `;
  const left = `Greedy search left the winner's path at step ${at + 1}: it took ${quoted(theirs)}${of(theirs)} where the ` +
    `winner goes on with ${quoted(ours)}${of(ours)}. ${totals}`;
  if (beam.log_prob > greedy.log_prob) return `${left}The choice that looked best on its own cost more later.`;
  if (beam.score > greedy.score)
    return `${left}The winner is the longer one: divided by length it has the better score. A length penalty of 0 would compare log p alone.`;
  return `${left}So greedy search did better here: the beam had dropped its beginning for others that looked better at ` +
    "the time. Beam search promises nothing; a wider beam forgives more.";
}

function pathTo(nodes, index) {
  const path = [];
  for (let i = index; i >= 0; i = nodes[i].parent) path.unshift(i);
  return path;
}

function neighbour(nodes, index, key) {
  const node = nodes[index];
  const find = (time, place) => {
    const found = nodes.findIndex((other) => other.time === time && other.place === place);
    return found < 0 ? null : found;
  };
  if (key === "ArrowLeft") return node.parent < 0 ? null : node.parent;
  if (key === "ArrowUp") return find(node.time, node.place - 1);
  if (key === "ArrowDown") return find(node.time, node.place + 1);
  if (key !== "ArrowRight") return null;
  const child = nodes.findIndex((other) => other.parent === index);
  return child < 0 ? null : child;
}

function legend(beam) {
  const sample = (kind, text) => el("svg", { width: 46, height: 20 }, el("g", { class: `node ${kind}` },
    el("rect", { x: 2, y: 2, width: 42, height: 16, rx: 5 }),
    el("text", { class: "word small", x: 23, y: 14, "text-anchor": "middle" }, text)));
  const items = [["best", "", "the winner"], ["greedy", "", "greedy search's way"], ["dropped", "✕", "dies after this step"], ["ended", "■", "finished"]];
  return el("ul", { class: "legend" }, ...items.filter(([kind]) => beam > 1 || kind !== "greedy")
    .map(([kind, text, meaning]) => el("li", {}, sample(kind, text), meaning)));
}
