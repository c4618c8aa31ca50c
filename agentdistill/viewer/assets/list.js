// The list of trajectories: only the rows in sight are elements.

const ROW = 58; // pixels, as in the style sheet

const list = { shown: [], selected: null, scorer: 0, top: 0 };

function setUpList(choose) {
  const spacer = el("div", { class: "spacer" });
  $("list").append(spacer);
  let pending = false;
  $("list").addEventListener("scroll", () => {
    if (pending) return;
    pending = true;
    requestAnimationFrame(() => { pending = false; paintList(); });
  }, { passive: true });
  $("list").addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (row) choose(Number(row.dataset.row));
  });
  new ResizeObserver(() => paintList()).observe($("list"));
}

/** Show these rows of the run. */
function showList(shown, scorer) {
  Object.assign(list, { shown, scorer, top: threshold(scorer, 0.01) });
  $("list").firstElementChild.style.height = `${shown.length * ROW}px`;
  paintList(true);
}

function paintList(anew = false) {
  const box = $("list"), spacer = box.firstElementChild;
  const first = Math.max(0, Math.floor(box.scrollTop / ROW) - 6);
  const last = Math.min(list.shown.length, Math.ceil((box.scrollTop + box.clientHeight) / ROW) + 6);
  if (!anew && list.first === first && list.last === last && list.painted === list.selected) return;
  Object.assign(list, { first, last, painted: list.selected });
  spacer.replaceChildren(...list.shown.slice(first, last).map((row, place) => listRow(row, first + place)));
  const chosen = list.shown.indexOf(list.selected);
  if (chosen >= first && chosen < last) box.setAttribute("aria-activedescendant", `row-${list.selected}`);
  else box.removeAttribute("aria-activedescendant");
}

function listRow(row, place) {
  const won = cell("success", row), kl = ratio(row, list.scorer), errors = cell("errors", row);
  const iteration = cell("iteration", row);
  const about = [iteration === null ? cell("batch", row) : `iteration ${iteration}`, count(cell("turns", row), "turn"), words(cell("stop", row))];
  const bar = el("i", { class: "bar" });
  bar.style.width = Number.isFinite(kl) && list.top > 0 ? `${Math.max(2, Math.min(100, (100 * kl) / list.top))}%` : "0";
  const node = el("div", {
      class: "row", id: `row-${row}`, role: "option", "aria-selected": String(row === list.selected), "aria-posinset": String(place + 1),
      "aria-setsize": String(list.shown.length),
    },
    el("span", { class: won ? "mark good" : "mark bad", "aria-label": won ? "success" : "failure", role: "img" }, won ? "✓" : "✗"),
    el("span", { class: "what" },
      el("span", { class: "task", dir: "auto" }, cell("task", row) || cell("id", row)),
      el("span", { class: "sub" }, about.join(" · "), errors ? el("em", {}, ` · ${count(errors, "tool error")}`) : null)),
    el("span", { class: "kl", title: "mean KL, nats a token" }, Number.isFinite(kl) ? fixed(kl) : "", el("span", { class: "track" }, bar)));
  node.dataset.row = row;
  node.style.top = `${place * ROW}px`;
  return node;
}

/** Mark a row of the run as chosen, and bring it into sight. */
function markRow(row) {
  list.selected = row;
  const place = list.shown.indexOf(row), box = $("list");
  if (place >= 0) {
    const top = place * ROW;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + ROW > box.scrollTop + box.clientHeight) box.scrollTop = top + ROW - box.clientHeight;
  }
  paintList(true);
}
