// A trajectory's turns in one drawing: KL by turn, step weights, the curriculum's depth and where the episode ended.

const NARROW = 16, WIDE = 46; // pixels a turn at least and at most
const SIDE = 46, RIGHT = 92; // room for the axis' labels and for the stop reason
const KL_TOP = 20, KL_HEIGHT = 64, WEIGHT_TOP = 116, WEIGHT_HEIGHT = 30, HEIGHT = 170;

/** Mean of student − scorer over each turn's tokens, nats; NaN where none are scored. */
const klByTurn = (item, choice) => item.turns.map((turn, k) => mean(turn.pieces.map((_, token) => gap(item, choice.scorer, k, token))));

const turnErrors = (turn) => (turn.calls ?? []).filter(([, , , ok]) => !ok).length;

/** The drawing. `width` is the room there is; `choose(turn)` is called with the turn that is clicked, from 0. */
function turnMap(item, choice, width, choose) {
  const n = item.turns.length, kl = klByTurn(item, choice), weight = item.turns.map((_, k) => real(weights(item, choice)?.[k]));
  const depth = cell("iteration", item.row) === null ? undefined : index.depth[cell("iteration", item.row)];
  const columns = Math.max(n, Math.min(depth ?? 0, n + 12)), prefix = cell("prefix", item.row);
  const step = Math.max(NARROW, Math.min(WIDE, (width - SIDE - RIGHT) / Math.max(1, columns)));
  const x = (turn) => SIDE + turn * step, end = x(columns);
  const picture = svg("svg", { width: end + RIGHT, height: HEIGHT, role: "img", "aria-label": described(item, kl, weight, depth), class: "map" });
  picture.append(svg("defs", {}, svg("pattern", { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
    svg("rect", { width: 2, height: 6, class: "hatch" }))));
  const hasKl = kl.some(Number.isFinite), hasWeight = weight.some(Number.isFinite);
  if (prefix) picture.append(svg("rect", { x: x(0), y: KL_TOP - 4, width: prefix * step, height: HEIGHT - KL_TOP - 14, fill: "url(#hatch)" }));
  if (hasKl) klPanel(picture, kl, x, step, end);
  else picture.append(label(x(0), KL_TOP + KL_HEIGHT / 2, "not scored by this scorer", "note"));
  if (hasWeight) weightPanel(picture, weight, x, step, end, weightsLabel(item, choice));
  picture.append(label(SIDE, 11, "KL by turn, nats a token", "title"));
  for (let k = 0; k < n; k++) {
    const tick = step >= 20 || k === 0 || (k + 1) % 5 === 0;
    if (tick) picture.append(label(x(k + 0.5), HEIGHT - 6, String(k + 1), "tick middle"));
    if (turnErrors(item.turns[k])) picture.append(svg("path", { class: "error", d: `M${x(k + 0.5)} ${KL_TOP - 6}l4 7h-8z` }));
    const hit = svg("rect", { class: "hit", x: x(k), y: KL_TOP - 8, width: step, height: HEIGHT - KL_TOP + 8, "data-turn": k });
    hit.append(svg("title", {}, turnTitle(item, k, kl[k], weight[k])));
    hit.addEventListener("click", () => choose(k));
    picture.append(hit);
  }
  if (depth !== undefined) marker(picture, x(Math.min(depth, columns)), `depth ${depth}`, "depth");
  stopMark(picture, x(n), item);
  return picture;
}

const label = (x, y, text, kind) => { const node = svg("text", { x, y, class: kind }); node.textContent = text; return node; };

function klPanel(picture, kl, x, step, end) {
  const finite = kl.filter(Number.isFinite), high = Math.max(0.05, ...finite), low = Math.min(0, ...finite);
  const y = (value) => KL_TOP + (KL_HEIGHT * (high - value)) / (high - low);
  for (const value of low < -0.2 * high ? [high, low] : [high]) picture.append(label(SIDE - 6, y(value) + 4, fixed(value, 2), "tick end"));
  picture.append(label(SIDE - 6, y(0) + 4, "0", "tick end"), svg("line", { class: "axis", x1: SIDE, x2: end, y1: y(0), y2: y(0) }));
  kl.forEach((value, k) => {
    if (!Number.isFinite(value)) return;
    picture.append(svg("rect", { class: value >= 0 ? "bar plus" : "bar minus", x: x(k) + step * 0.14, width: step * 0.72, rx: 2,
      y: Math.min(y(value), y(0)), height: Math.max(1.5, Math.abs(y(value) - y(0))) }));
  });
}

function weightPanel(picture, weight, x, step, end, name) {
  const high = Math.max(1, ...weight.filter(Number.isFinite));
  const y = (value) => WEIGHT_TOP + WEIGHT_HEIGHT * (1 - value / high);
  picture.append(label(SIDE, WEIGHT_TOP - 9, name, "title"), label(SIDE - 6, y(high) + 5, fixed(high, 1), "tick end"), label(SIDE - 6, y(0) + 2, "0", "tick end"));
  picture.append(svg("line", { class: "axis", x1: SIDE, x2: end, y1: y(0), y2: y(0) }));
  if (high > 1) picture.append(svg("line", { class: "one", x1: SIDE, x2: end, y1: y(1), y2: y(1) }));
  weight.forEach((value, k) => {
    if (!Number.isFinite(value)) return;
    picture.append(svg("line", { class: "stem", x1: x(k + 0.5), x2: x(k + 0.5), y1: y(0), y2: y(value) }), svg("circle", { class: "dot", cx: x(k + 0.5), cy: y(value), r: 3.2 }));
  });
}

function marker(picture, x, text, kind) {
  picture.append(svg("line", { class: kind, x1: x, x2: x, y1: KL_TOP - 8, y2: HEIGHT - 16 }), label(x - 4, KL_TOP - 9, text, `${kind} end`));
}

function stopMark(picture, x, item) {
  const stop = cell("stop", item.row), won = cell("success", item.row), kind = won ? "good" : "bad";
  picture.append(svg("line", { class: `stop ${kind}`, x1: x, x2: x, y1: KL_TOP - 2, y2: HEIGHT - 16 }),
    label(x + 7, KL_TOP + 12, won ? "✓ success" : "✗ failure", `ending ${kind}`), label(x + 7, KL_TOP + 28, words(stop), "ending"));
}

function turnTitle(item, k, kl, weight) {
  const parts = [`Turn ${k + 1}`];
  if (item.turns[k].author !== "student") parts.push(`by the ${item.turns[k].author}`);
  if (Number.isFinite(kl)) parts.push(`KL ${fixed(kl)}`);
  if (Number.isFinite(weight)) parts.push(`weight ${fixed(weight, 2)}`);
  if (turnErrors(item.turns[k])) parts.push(count(turnErrors(item.turns[k]), "tool error"));
  return parts.join(" · ");
}

/** The drawing in words, for those who do not see it. */
function described(item, kl, weight, depth) {
  const worst = kl.reduce((best, value, k) => (value > (kl[best] ?? -Infinity) ? k : best), -1);
  const parts = [count(item.turns.length, "turn")];
  if (worst >= 0) parts.push(`mean KL by turn highest at turn ${worst + 1} with ${fixed(kl[worst])} nats a token`);
  if (weight.some(Number.isFinite)) parts.push(`weights from ${fixed(Math.min(...weight.filter(Number.isFinite)), 2)} to ${fixed(Math.max(...weight.filter(Number.isFinite)), 2)}`);
  if (depth !== undefined) parts.push(`curriculum depth ${depth}`);
  parts.push(`ended by ${words(cell("stop", item.row))}, ${cell("success", item.row) ? "success" : "failure"}`);
  return parts.join("; ");
}

/** The small meter beside a turn: KL above, weight below. */
function meter(kl, weight, most) {
  const width = 84, part = (value, whole) => Math.max(1.5, (width * Math.min(Math.abs(value), whole)) / whole);
  const picture = svg("svg", { class: "meter", width, height: 14, "aria-hidden": "true" });
  if (Number.isFinite(kl)) picture.append(svg("rect", { class: "rail", width, height: 5, rx: 2.5 }), svg("rect", { class: kl >= 0 ? "bar plus" : "bar minus", width: part(kl, most), height: 5, rx: 2.5 }));
  if (Number.isFinite(weight)) picture.append(svg("rect", { class: "rail", y: 8, width, height: 4, rx: 2 }), svg("rect", { class: "weight", y: 8, width: part(weight, Math.max(1, weight)), height: 4, rx: 2 }));
  return picture;
}
