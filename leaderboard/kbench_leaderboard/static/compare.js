"use strict";
// Shows two runs side by side. All figures come with the page: nothing is computed here but which
// examples one run has right and the other has not. Every text is set as text.
const chooser = document.getElementById("chooser");
const chosen = document.getElementById("chosen");
const MOST = 200;
const byKey = new Map(DATA.runs.map((run) => [run.key, run]));

function make(name, content, properties = {}) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...[content ?? []].flat());
  return element;
}

function fill(field, options) {
  const before = field.value;
  field.replaceChildren(...options.map(([value, text]) => make("option", text, { value })));
  if (options.some(([value]) => value === before)) field.value = before;
}

const points = (value) => (100 * value).toFixed(1).replace("-", "−");
const signed = (value) => (value > 0 ? "+" : "") + points(value);
const probability = (value) => value < 0.0001 ? "< 0.0001" : value.toPrecision(2);

function found(a, b) {
  for (const pair of DATA.pairs) {
    if (pair.a === a && pair.b === b) return [pair, 1];
    if (pair.a === b && pair.b === a) return [pair, -1];
  }
  return [null, 1];
}

function statistics([pair, sign]) {
  if (!pair) return make("p", "These two are not compared: they share no seed or not their test examples, or one is the control of another run.");
  const ends = [pair.difference.low, pair.difference.high].map((end) => sign * end).sort((x, y) => x - y);
  const rows = [
    ["difference, A − B", `${signed(sign * pair.difference.value)} [${ends.map(signed).join(", ")}]`],
    ["p", `${probability(pair.p)} (${pair.test})`],
    ["p, Holm", probability(pair.p_holm)],
    ["of each seed", Object.entries(pair.by_seed).map(([seed, value]) => `${seed}: ${signed(sign * value)}`).join(", ")],
    ["detectable", pair.detectable === null ? "–" : points(pair.detectable)],
    ["test examples", String(pair.difference.n)],
    ...pair.warnings.map((text) => ["note", text]),
  ];
  return make("dl", rows.flatMap(([key, value]) => [make("dt", key), make("dd", value)]), { className: "card" });
}

function marked(example) {
  const pieces = [];
  let position = 0;
  for (const [start, end] of example.spans ?? []) {
    pieces.push(example.text.slice(position, start), make("mark", example.text.slice(start, end)));
    position = end;
  }
  return [...pieces, (example.text ?? "the data were not at hand").slice(position)];
}

function examples(a, b, seed, change) {
  const [ours, theirs] = [a, b].map((run) => DATA.predictions[run.seeds[seed]]);
  const marks = [a, b].map((run) => DATA.right[run.seeds[seed]]);
  if (!ours || !theirs) return [make("p", "Their predictions are not on this page.")];
  const wanted = { gained: [true, false], lost: [false, true], wrong: [false, false] }[change];
  const rows = DATA.examples.flatMap((example, at) => {
    const right = marks.map((signs) => signs[at] === "1");
    if (right[0] !== wanted[0] || right[1] !== wanted[1]) return [];
    return [make("tr", [
      make("th", example.id, { scope: "row" }), make("td", marked(example), { className: "text" }),
      ...[example.gold, ours[at], theirs[at]].map((code) => make("td", DATA.labels[code], { className: "text short" })),
    ])];
  });
  const limit = DATA.examples.length < DATA.of ? ` among the first ${DATA.examples.length} of ${DATA.of}` : "";
  const count = make("p", `${rows.length} examples${limit}${rows.length > MOST ? `; the first ${MOST}` : ""}.`);
  if (!rows.length) return [count];
  const head = make("tr", ["example", "text", "gold", "A", "B"].map((text) => make("th", text, { scope: "col" })));
  const table = make("table", [make("thead", head), make("tbody", rows.slice(0, MOST))], { className: "samples" });
  const region = make("div", table, { className: "scroll", tabIndex: 0, role: "region" });
  region.setAttribute("aria-label", "Examples");
  return [count, region];
}

function show() {
  const [a, b] = ["a", "b"].map((name) => byKey.get(chooser.elements[name].value));
  const shared = Object.keys(a.seeds).filter((seed) => seed in b.seeds);
  fill(chooser.elements.seed, shared.map((seed) => [seed, `seed ${seed}`]));
  const title = make("h2", `${a.name} against ${b.name}`);
  const seed = chooser.elements.seed.value;
  chosen.replaceChildren(title, statistics(found(a.key, b.key)), ...examples(a, b, seed, chooser.elements.change.value));
}

function restore() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  for (const [name, other] of [["a", 0], ["b", Math.min(1, DATA.runs.length - 1)]]) {
    const key = wanted.get(name);
    chooser.elements[name].value = byKey.has(key) ? key : DATA.runs[other].key;
  }
  if (["gained", "lost", "wrong"].includes(wanted.get("change"))) chooser.elements.change.value = wanted.get("change");
  if (chooser.elements.a.value === chooser.elements.b.value) {
    chooser.elements.b.value = (DATA.runs.find((run) => run.key !== chooser.elements.a.value) ?? DATA.runs[0]).key;
  }
  show();
  if (wanted.has("seed")) { chooser.elements.seed.value = wanted.get("seed"); show(); }
}

for (const name of ["a", "b"]) fill(chooser.elements[name], DATA.runs.map((run) => [run.key, run.name]));
chooser.hidden = chosen.hidden = false;
chooser.addEventListener("submit", (event) => event.preventDefault());
chooser.addEventListener("change", () => {
  history.replaceState(null, "", `#${new URLSearchParams(new FormData(chooser))}`);
  show();
});
addEventListener("hashchange", () => { if (location.hash !== "#main") restore(); });
restore();
