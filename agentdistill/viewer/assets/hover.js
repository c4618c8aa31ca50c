// What is known of one token, shown while the pointer is on it or while the arrow keys read it.

const hover = { token: null };

function setUpHover(current) {
  const main = $("detail");
  const enter = (span) => {
    const { item, choice } = current();
    if (!item || !tokenAt.has(span) || hover.token === span) return;
    pointOut(span, item, choice);
  };
  main.addEventListener("pointerover", (event) => (tokenAt.has(event.target) ? enter(event.target) : hideHover()));
  main.addEventListener("pointerleave", hideHover);
  main.addEventListener("scroll", hideHover, { passive: true });
  main.addEventListener("focusout", hideHover);
  main.addEventListener("keydown", (event) => {
    const box = event.target.closest?.(".tokens");
    if (!box || !["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key) || !box.children.length) return;
    event.preventDefault();
    const spans = [...box.children], here = spans.indexOf(hover.token), last = spans.length - 1;
    const next = { ArrowLeft: Math.max(0, here - 1), ArrowRight: Math.min(last, here + 1), Home: 0, End: last }[event.key];
    enter(spans[next]);
    $("said").textContent = [...$("hover").querySelectorAll("tr, .head")].slice(0, 5).map((line) => line.innerText).join("; ");
  });
}

function hideHover() {
  hover.token?.classList.remove("pointed");
  hover.token = null;
  $("hover").hidden = true;
}

function pointOut(span, item, choice) {
  hideHover();
  const [turn, token] = tokenAt.get(span), box = $("hover");
  hover.token = span;
  span.classList.add("pointed");
  box.replaceChildren(...told(item, choice, turn, token));
  box.hidden = false;
  const rect = span.getClientRects()[0] ?? span.getBoundingClientRect();
  const left = Math.max(8, Math.min(rect.left, innerWidth - box.offsetWidth - 8));
  const below = rect.bottom + 8 + box.offsetHeight < innerHeight;
  box.style.left = `${left}px`;
  box.style.top = `${below ? rect.bottom + 8 : Math.max(8, rect.top - box.offsetHeight - 8)}px`;
}

/** The lines about a token: text, the student, each scorer, then what follows from them. */
function told(item, choice, turn, token) {
  const piece = item.turns[turn].pieces[token], ours = student(item, turn, token), sampled = at(item.numbers.sampled, turn, token);
  const rows = [line("student", fixed(ours), "", Number.isFinite(sampled) ? `${fixed(sampled)} at temperature ${cell("temperature", item.row)}` : "")];
  const order = [choice.scorer, ...index.scorers.map((_, n) => n).filter((n) => n !== choice.scorer)];
  for (const n of order) {
    const theirs = at(scored(item, n)?.logprobs, turn, token), entropy = at(scored(item, n)?.entropy, turn, token);
    if (Number.isNaN(theirs)) continue;
    rows.push(line(shortName(n), fixed(theirs), fixed(ours - theirs, 3, true), Number.isFinite(entropy) ? `entropy ${fixed(entropy)}` : ""));
  }
  const more = [];
  const fact = (name, value) => more.push(el("div", {}, el("dt", {}, name), el("dd", {}, value)));
  const advantage = at(item.numbers.advantage, turn, token), weight = real(weights(item, choice)?.[turn]), kind = PROVENANCE[classes(item, choice)?.[turn]];
  if (Number.isFinite(advantage)) fact("advantage", fixed(advantage, 3, true));
  if (Number.isFinite(weight)) fact(weightsLabel(item, choice), fixed(weight));
  if (kind) fact("step's provenance", kind);
  const likely = scored(item, choice.scorer)?.topk?.[turn]?.[token];
  return [
    el("p", { class: "head" }, el("code", { dir: "auto" }, quoted(piece)), el("span", { class: "quiet" }, ` id ${item.numbers.ids[turn][token]} · turn ${turn + 1}, token ${token + 1}`)),
    el("table", {}, el("tr", { class: "quiet" }, el("th", {}, ""), el("th", {}, "log-prob"), el("th", {}, "student −"), el("th", {}, "")), ...rows),
    more.length ? el("dl", {}, ...more) : "",
    likely ? el("p", { class: "quiet" }, "likeliest: ", ...likely.flatMap(([text, value]) => [el("code", { dir: "auto" }, quoted(text)), ` ${fixed(real(value), 2)}  `])) : "",
  ];
}

const line = (name, value, difference, more) =>
  el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, value), el("td", {}, difference), el("td", { class: "quiet" }, more));

/** A piece of text between quotation marks, with its line breaks and tabs to be seen. */
const quoted = (piece) => `“${piece.replaceAll("\n", "↵").replaceAll("\t", "⇥")}”`;

/** A scorer's name, or the end of a path where that tells it from the others. */
function shortName(n) {
  const short = (name) => name.split("/").slice(-2).join("/");
  const mine = short(index.scorers[n]);
  return index.scorers.filter((name) => short(name) === mine).length === 1 ? mine : index.scorers[n];
}
