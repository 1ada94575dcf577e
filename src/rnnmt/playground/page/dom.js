// Making elements. Text always goes in as text, never as HTML: a translation may hold anything.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "g", "rect", "path", "text", "line", "polyline", "circle"]);

export function el(tag, attributes = {}, ...children) {
  const node = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

export const $ = (selector) => document.querySelector(selector);

// A row of buttons of which one is pressed. `options` are [value, label] pairs.
export function choice(label, options, chosen, choose) {
  return el("div", { class: "choice", role: "group", "aria-label": label }, `${label} `,
    ...options.map(([value, text]) => el("button", {
      type: "button", "aria-pressed": String(value === chosen), onclick: () => choose(value),
    }, text)));
}

// A piece of a word as a person reads it: U+2581 begins a word, other letters continue one.
export function word(piece) {
  if (piece === "<BOS>") return "start";
  if (piece === "<EOS>") return "end";
  if (piece === "<unk>") return "unknown";
  if (piece.startsWith("▁")) return piece.slice(1) || "␣";
  return /^\p{L}/u.test(piece) ? `‑${piece}` : piece;
}

export const quoted = (piece) => `“${word(piece)}”`;

// The text that pieces spell, or null where some stand for bytes or for nothing known.
export function spelled(pieces) {
  const own = pieces.filter((piece) => piece !== "<BOS>" && piece !== "<EOS>");
  if (own.some((piece) => /^<(0x..|unk)>$/.test(piece))) return null;
  return own.join("").replaceAll("▁", " ").trim();
}

export function percent(probability) {
  const value = 100 * probability;
  if (value > 0 && value < 0.01) return "< 0.01 %";
  return `${value >= 99.95 || value === 0 ? Math.round(value) : value.toPrecision(value < 10 ? 2 : 3)} %`;
}

export const logProbability = (value) =>
  value == null ? "−∞" : (Math.abs(value) < 0.005 ? "0.00" : value.toFixed(2)).replace("-", "−");
