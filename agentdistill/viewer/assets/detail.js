// One trajectory: its facts, the drawing of its turns, and the conversation with every token shaded.

const AT_ONCE = 12; // turns built before the first paint
const LONG = 20000, PART = 8000; // characters of an observation that are laid out at once, and of the parts of a longer one

let building = 0;
const tokenAt = new WeakMap(); // a token's element → [turn, token]

/** Show a trajectory. `act` holds what can be done: `turn(k)`, `step(by)`, `link()`, `list()`. */
function showTrajectory(item, choice, act) {
  const mine = ++building, main = $("detail"), mode = modeFor(item, choice);
  const turns = el("div", { class: "turns" });
  const map = el("div", { class: "map-box" }, turnMap(item, choice, Math.max(360, main.clientWidth - 104), act.turn));
  main.replaceChildren(el("article", { "aria-label": `Trajectory ${cell("id", item.row)}` }, heading(item, act), facts(item), map, legend(mode, choice.colour),
    opening(item), turns, ending(item)));
  const kl = klByTurn(item, choice), most = Math.max(0.5, ...kl.filter(Number.isFinite).map(Math.abs));
  const add = (k) => turns.append(turnBlock(item, k, mode, choice, kl[k], most, act));
  let next = 0;
  const rest = (until) => { while (next < item.turns.length && next < until) add(next++); };
  rest(AT_ONCE);
  const later = () => {
    if (mine !== building) return;
    const until = performance.now() + 8;
    while (next < item.turns.length && performance.now() < until) add(next++);
    if (next < item.turns.length) setTimeout(later);
    else act.built();
  };
  if (next < item.turns.length) setTimeout(later);
  else act.built();
  return { complete: () => rest(Infinity) };
}

function heading(item, act) {
  const button = (text, name, run) => el("button", { type: "button", "aria-label": name, title: name, onclick: run }, text);
  const won = cell("success", item.row);
  return el("header", { class: "head" },
    el("div", {},
      el("p", { class: "quiet" }, cell("env", item.row), " · ", el("bdi", {}, cell("id", item.row))),
      el("h2", { dir: "auto" }, cell("task", item.row) || cell("id", item.row))),
    el("div", { class: "tools" },
      el("button", { type: "button", id: "to-list", onclick: act.list }, "☰ List"),
      el("span", { class: won ? "badge good" : "badge bad" }, won ? "✓ success" : "✗ failure"),
      el("span", { class: "badge", title: index.stops[cell("stop", item.row)] ?? "" }, words(cell("stop", item.row))),
      button("←", "Previous trajectory (k)", () => act.step(-1)), button("→", "Next trajectory (j)", () => act.step(1)),
      button("Copy link", "Copy a link to this place", act.link)));
}

function facts(item) {
  const get = (name) => cell(name, item.row), iteration = get("iteration"), depth = index.depth[iteration];
  const pairs = [
    ["reward", fixed(get("reward"), 2)], ["turns", get("turns")], ["student tokens", get("tokens").toLocaleString("en")],
    iteration === null ? ["batch", get("batch")] : ["iteration", iteration],
    depth !== undefined && ["depth limit", depth], get("prefix") > 0 && ["replayed turns", get("prefix")], get("parent") && ["branch of", get("parent")],
    get("calls") > 0 && ["tool calls", `${get("calls")} (${count(get("errors"), "error")})`],
    get("windowed") > 0 && ["context windowed", count(get("windowed"), "time")],
    ["seed", get("seed")], ["temperature", get("temperature") ?? "–"], ["policy", `${get("policy")} v${get("version")}`],
    index.max_turns && ["turn limit", index.max_turns],
  ].filter(Boolean);
  return el("dl", { class: "facts" }, ...pairs.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, String(value)))));
}

function opening(item) {
  const parts = item.messages.map(([role, content]) => folded(role, content));
  if (item.options) parts.unshift(folded("environment options", item.options));
  return el("section", { class: "opening", "aria-label": "Opening messages" }, ...parts);
}

/** A message of the opening; a long one is folded. */
function folded(role, content) {
  const body = el("pre", { dir: "auto" }, content);
  if (content.length < 700 && role !== "environment options") return el("div", { class: "message" }, el("span", { class: "who" }, role), body);
  return el("div", { class: "message" }, el("span", { class: "who" }, role),
    el("details", {}, el("summary", {}, content.trim().slice(0, 90).split("\n")[0], el("span", { class: "quiet" }, `  ${count(content.length, "character")}`)), body));
}

function turnBlock(item, k, mode, choice, kl, most, act) {
  const turn = item.turns[k], weight = real(weights(item, choice)?.[k]);
  const numbers = [Number.isFinite(kl) && `KL ${fixed(kl)}`, Number.isFinite(weight) && `w ${fixed(weight, 2)}`].filter(Boolean).join("  ");
  const side = el("div", { class: "who" },
    el("a", { class: "number", href: act.address(k), title: "Link to this turn" }, `Turn ${k + 1}`),
    el("small", {}, turn.author === "student" ? "student" : turn.author), meter(kl, weight, most), el("small", { class: "figures" }, numbers));
  return el("section", { class: `turn by-${turn.author}`, id: `turn-${k}`, "aria-label": `Turn ${k + 1}` }, side,
    el("div", { class: "said" }, message(item, k, mode, choice), ...notes(turn, k),
      el("div", { class: "observation" }, passage(turn.observation || "(nothing)"), reward(turn))));
}

/** A text; of one so long that laying it out would take seconds, the beginning, and the rest when asked for. */
function passage(text) {
  const part = (content) => el("pre", { dir: "auto", class: "part" }, content);
  if (text.length <= LONG) return el("pre", { dir: "auto" }, text);
  const parts = [];
  for (let from = 0; from < text.length; from = parts.at(-1).end) {
    const gap = from + PART < text.length ? text.slice(from + PART, from + PART + 400).search(/\s/) : 0;
    let end = Math.min(text.length, from + PART + Math.max(0, gap));
    if (/[\uD800-\uDBFF]/.test(text[end - 1]) && end < text.length) end++; // not through a character
    parts.push({ end, content: text.slice(from, end) });
  }
  const more = el("button", { type: "button", class: "more", onclick: () => box.replaceChildren(...parts.map(({ content }) => part(content))) },
    `Show all ${count(text.length, "character")}`);
  const box = el("div", { class: "passage" }, part(parts[0].content.slice(0, 2000) + "…"), more);
  return box;
}

/** The message itself, a span a token. */
function message(item, k, mode, choice) {
  const turn = item.turns[k], many = turn.pieces.length;
  const box = el("pre", { class: "tokens", dir: "auto", tabIndex: 0, role: "group",
    "aria-label": `Message of turn ${k + 1}, ${count(many, "token")}; the arrow keys read them one by one` });
  turn.pieces.forEach((piece, token) => {
    const shade = mode ? MODES[mode].shade(item, choice, k, token) : "";
    const node = el("span", { class: shade }, piece || "·");
    tokenAt.set(node, [k, token]);
    box.append(node);
  });
  if (turn.action !== undefined) return el("div", {}, box, el("p", { class: "quiet" }, "the environment was handed"), el("pre", { dir: "auto" }, turn.action));
  return box;
}

function notes(turn, k) {
  const out = [];
  if (turn.finish === "length") out.push(el("p", { class: "note" }, "cut off by the limit on tokens"));
  if (turn.fresh && k > 0) out.push(el("p", { class: "note quiet" }, "in a new context"));
  for (const [name, given, result, ok] of turn.calls ?? []) {
    out.push(el("details", { class: ok ? "call" : "call failed" },
      el("summary", {}, el("b", {}, ok ? "tool" : "✗ tool error"), " ", el("bdi", {}, name), " ", el("code", { dir: "auto" }, given.slice(0, 120))),
      el("pre", { dir: "auto" }, given), el("pre", { dir: "auto" }, result)));
  }
  return out;
}

function reward(turn) {
  const parts = [turn.reward ? `reward ${fixed(turn.reward, 2, true)}` : "", turn.terminated ? "terminated" : "", turn.truncated ? "truncated" : ""];
  return parts.some(Boolean) ? el("p", { class: "reward" }, parts.filter(Boolean).join(" · ")) : null;
}

function ending(item) {
  const stop = cell("stop", item.row), won = cell("success", item.row);
  return el("footer", { class: "ending" }, el("b", { class: won ? "good" : "bad" }, won ? "✓ success" : "✗ failure"),
    ` after ${count(item.turns.length, "turn")}: ${index.stops[stop] ?? words(stop)}.`, item.error ? el("pre", { dir: "auto" }, item.error) : null);
}

/** Shade the tokens anew, without building them again. */
function reshade(item, choice) {
  const mode = modeFor(item, choice);
  for (const span of document.querySelectorAll(".tokens > span")) {
    const [turn, token] = tokenAt.get(span);
    span.className = mode ? MODES[mode].shade(item, choice, turn, token) : "";
  }
  document.querySelector("p.legend")?.replaceWith(legend(mode, choice.colour));
}

/** Mark what a search found, where the browser can do that without touching the text. */
function highlight(query) {
  if (!window.Highlight) return;
  CSS.highlights.delete("found");
  const wanted = terms(query), ranges = [];
  if (!wanted.length) return;
  for (const box of $("detail").querySelectorAll("pre, h2")) {
    const nodes = [], walker = document.createTreeWalker(box, NodeFilter.SHOW_TEXT);
    let text = "";
    while (walker.nextNode()) { nodes.push([text.length, walker.currentNode]); text += walker.currentNode.data; }
    const low = text.toLowerCase();
    if (low.length !== text.length) continue; // a letter whose small form is longer: places would be off
    const place = (offset) => { const [start, node] = nodes.findLast(([begin]) => begin <= offset); return [node, Math.min(offset - start, node.length)]; };
    for (const term of wanted) {
      for (let at = low.indexOf(term); at >= 0 && ranges.length < 2000; at = low.indexOf(term, at + term.length)) {
        const range = new Range();
        range.setStart(...place(at));
        range.setEnd(...place(at + term.length));
        ranges.push(range);
      }
    }
  }
  CSS.highlights.set("found", new Highlight(...ranges));
}
