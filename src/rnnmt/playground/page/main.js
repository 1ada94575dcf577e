// What is asked, what came back, and which variant is looked into.

import { drawAlignment } from "./alignment.js";
import { $, el, logProbability, percent } from "./dom.js";
import { drawGates } from "./gates.js";
import { drawTree } from "./tree.js";

const PATIENCE = 200; // ms without a key before the models are asked
const PROMISE = 300; // ms, beyond which the page says what is slow

let overview, chosen, asking, waiting;
const answers = new Map(); // variant -> its answer, or {error}
let question = {}; // what `answers` answer

async function start() {
  try {
    overview = await (await fetch("api/variants")).json();
  } catch {
    return say("The playground does not answer. Is `rnnmt playground` still running?", true);
  }
  const count = overview.variants.length;
  const languages = `${overview.source_language} → ${overview.target_language}`;
  $("#about").textContent = `${count} trained variant${count > 1 ? "s" : ""}, ${languages}, corpus “${overview.corpus}”. ` +
    "Watch where each one looks, what it considers and drops, and what it remembers.";
  $("#language").textContent = overview.source_language && `(${overview.source_language})`;
  $("#sentence").maxLength = $("#prefix").maxLength = overview.max_characters;
  $("#sentence").lang = overview.source_language;
  $("#beam").max = overview.max_beam;
  drawExamples();
  restore();
  for (const id of ["sentence", "prefix", "beam", "penalty"]) {
    $(`#${id}`).addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(ask, PATIENCE);
      labels();
    });
  }
  $("#question").addEventListener("submit", (event) => { event.preventDefault(); ask(); });
  addEventListener("hashchange", () => { if (location.hash.slice(1) !== hash()) { restore(); ask(); } });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawInside);
  drawChips();
  await ask();
}

// --- asking ----------------------------------------------------------------------------------

async function ask() {
  clearTimeout(waiting);
  asking?.abort();
  asking = new AbortController();
  const { signal } = asking;
  question = read();
  history.replaceState(null, "", `#${hash()}`);
  labels();
  if (!question.sentence.trim()) {
    answers.clear();
    drawTable();
    drawInside();
    return say("Type a sentence, or take an example.");
  }
  drawTable(true);
  say("…");
  const started = performance.now();
  // The one that is looked into goes first.
  const order = [chosen, ...overview.variants.map(({ name }) => name).filter((name) => name !== chosen)];
  try {
    await Promise.all(order.map(async (name) => {
      const answer = await askOne(name, signal);
      if (signal.aborted) return;
      answers.set(name, answer);
      drawRow(name);
      if (name === chosen) drawInside();
    }));
  } catch (error) {
    if (!signal.aborted) say("The playground does not answer. Is `rnnmt playground` still running?", true);
    return;
  }
  if (!signal.aborted) report(Math.round(performance.now() - started));
}

async function askOne(variant, signal) {
  const response = await fetch("api/answer", {
    method: "POST", signal, headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...question, variant }),
  });
  return response.json().catch(() => ({ error: `The playground failed (status ${response.status}).` }));
}

function report(total) {
  const found = [...answers.values()];
  const errors = [...new Set(found.map(({ error }) => error).filter(Boolean))];
  if (errors.length) return say(errors[0], true);
  const sum = (answer) => Object.values(answer.milliseconds).reduce((a, b) => a + b, 0);
  const slowest = found.reduce((a, b) => (sum(b) > sum(a) ? b : a));
  const [part, most] = Object.entries(slowest.milliseconds).reduce((a, b) => (b[1] > a[1] ? b : a));
  let text = `Answered in ${total} ms by ${found.length} variant${found.length > 1 ? "s" : ""}.`;
  if (total > PROMISE)
    text += ` Slowest is ${slowest.variant} with ${Math.round(sum(slowest))} ms, ${Math.round(most)} of them for the ${part}.`;
  const strange = found[0].source.filter((piece) => /^<(0x..|unk)>$/.test(piece)).length;
  if (strange) text += " Some characters were never seen in training: the models read them as bytes or as “unknown”, and guess.";
  say(text);
}

function say(text, isError = false) {
  $("#status").textContent = text;
  $("#status").classList.toggle("error", isError);
}

// --- what is asked: the form, and the address ------------------------------------------------

function read() {
  const penalty = Number($("#penalty").value);
  return {
    sentence: $("#sentence").value, prefix: $("#prefix").value, beam: Number($("#beam").value),
    length_penalty: Number.isFinite(penalty) ? Math.min(10, Math.max(0, penalty)) : 1,
  };
}

function hash() {
  return new URLSearchParams({
    s: $("#sentence").value, start: $("#prefix").value, beam: $("#beam").value, penalty: $("#penalty").value, v: chosen,
  }).toString();
}

function restore() {
  const given = new URLSearchParams(location.hash.slice(1));
  const names = overview.variants.map(({ name }) => name);
  const first = overview.variants.findLast(({ attention }) => attention !== "none") ?? overview.variants.at(-1);
  chosen = names.includes(given.get("v")) ? given.get("v") : first.name;
  $("#sentence").value = given.get("s") ?? overview.examples[1]?.sentence ?? "";
  $("#prefix").value = given.get("start") ?? "";
  $("#beam").value = given.get("beam") ?? 5;
  $("#penalty").value = given.get("penalty") ?? 1;
  labels();
}

function labels() {
  $("#beam-value").textContent = $("#beam").value;
  $("#beam-head").textContent = $("#beam").value;
}

function force(text) {
  $("#prefix").value = text;
  ask();
}

function drawExamples() {
  $("#examples").replaceChildren(...overview.examples.map(({ sentence }) => el("button", {
    type: "button", title: sentence,
    onclick: () => { $("#sentence").value = sentence; $("#prefix").value = ""; ask(); },
  }, sentence)));
}

// --- the table -------------------------------------------------------------------------------

function drawTable(pending = false) {
  const rows = overview.variants.map(({ name }) => el("tr", { "data-variant": name, onclick: () => choose(name) }));
  $("#translations tbody").replaceChildren(...rows);
  overview.variants.forEach(({ name }) => drawRow(name, pending));
  const reference = referenceOf(question.sentence);
  $("#reference").hidden = !reference;
  $("#reference").replaceChildren("The test set's own translation: ", el("strong", { lang: overview.target_language }, reference ?? ""));
}

function drawRow(name, pending = false) {
  const row = $(`tr[data-variant="${CSS.escape(name)}"]`), answer = answers.get(name);
  const { cell, attention } = overview.variants.find((variant) => variant.name === name);
  row.classList.toggle("chosen", name === chosen);
  row.classList.toggle("pending", pending);
  const head = el("th", { scope: "row" }, el("button", { type: "button" }, name),
    el("small", {}, `${cell.toUpperCase()}, ${attention === "none" ? "no attention" : `${attention} attention`}`));
  if (!answer || answer.error) {
    row.replaceChildren(head, el("td", { colspan: 3, class: answer ? "error" : "soft" }, answer?.error ?? ""));
    return;
  }
  const time = Object.values(answer.milliseconds).reduce((a, b) => a + b, 0);
  const [greedy, beam] = [answer.greedy.text.split(" "), answer.beam.text.split(" ")];
  const shared = common(greedy, beam);
  row.replaceChildren(head,
    cellOf("greedy", answer.greedy, greedy, shared[0]), cellOf("beam search", answer.beam, beam, shared[1]),
    el("td", { class: "number" }, String(Math.round(time))));
}

function cellOf(label, { text, log_prob: logProb, ended }, words, shared) {
  const isRight = text === referenceOf(question.sentence);
  return el("td", { "data-label": label },
    el("span", { dir: "auto", lang: overview.target_language }, ...words.flatMap((word, i) => [
      i ? " " : "", shared.has(i) ? word : el("span", { class: "differs" }, word)])),
    text ? null : el("em", { class: "soft" }, "(nothing)"),
    el("small", {}, `log p ${logProbability(logProb)} (${percent(Math.exp(logProb ?? -Infinity))})`,
      ended ? null : " · found no end, cut off",
      isRight ? " · " : null, isRight ? el("span", { class: "right" }, "✓ as the test set has it") : null));
}

const referenceOf = (sentence) =>
  overview.examples.find((example) => example.sentence === sentence?.trim())?.reference;

// The places of a longest common subsequence of two lists of words, in each of them.
function common(a, b) {
  const table = Array.from({ length: a.length + 1 }, () => new Array(b.length + 1).fill(0));
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      table[i][j] = a[i] === b[j] ? 1 + table[i + 1][j + 1] : Math.max(table[i + 1][j], table[i][j + 1]);
  const places = [new Set(), new Set()];
  for (let i = 0, j = 0; i < a.length && j < b.length;) {
    if (a[i] === b[j]) { places[0].add(i++); places[1].add(j++); }
    else if (table[i + 1][j] >= table[i][j + 1]) i++;
    else j++;
  }
  return places;
}

// --- the variant that is looked into ----------------------------------------------------------

function choose(name) {
  chosen = name;
  history.replaceState(null, "", `#${hash()}`);
  document.querySelectorAll("#translations tbody tr").forEach((row) =>
    row.classList.toggle("chosen", row.dataset.variant === name));
  drawChips();
  drawInside();
}

function drawChips() {
  $("#chosen .chips").replaceChildren(...overview.variants.map(({ name }) => el("button", {
    type: "button", "aria-pressed": String(name === chosen), onclick: () => choose(name) }, name)));
}

function drawInside() {
  const variant = overview.variants.find(({ name }) => name === chosen), answer = answers.get(chosen);
  for (const id of ["alignment", "tree", "gates"]) $(`#${id}`).hidden = !answer || Boolean(answer.error);
  if (!answer || answer.error) return;
  drawAlignment($("#alignment .body"), answer, variant, drawInside);
  drawTree($("#tree .body"), answer, question, force);
  drawGates($("#gates .body"), answer, variant, drawInside);
}

start();
