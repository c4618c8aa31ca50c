// State, the address, and the keyboard. The address holds what is shown, so that a link leads back to it.

const state = { trajectory: "", turn: 0, scorer: 0, before: 0, colour: "divergence", q: "", ...Object.fromEntries(FILTERS.map((name) => [name, ""])) };
const now = { shown: [], hits: null, progress: 1, item: null, view: null, row: null };
let byId = new Map();

const choice = () => ({ scorer: state.scorer, before: state.before, colour: state.colour });

/** The address of what is shown, or of it with some values changed. */
function address(changes = {}) {
  const all = { ...state, ...changes }, out = new URLSearchParams();
  if (all.trajectory) out.set("trajectory", all.trajectory);
  if (all.turn) out.set("turn", all.turn);
  if (all.scorer !== index.teacher) out.set("scorer", index.scorers[all.scorer]);
  if (all.colour !== "divergence") out.set("colour", all.colour);
  if (all.colour === "provenance" && index.scorers[all.before]) out.set("before", index.scorers[all.before]);
  for (const name of ["q", ...FILTERS]) if (all[name]) out.set(name, all[name]);
  return "#" + out.toString().replaceAll("%2F", "/");
}

function keepAddress(anew = false) {
  if (address() === location.hash || (address() === "#" && !location.hash)) return;
  history[anew ? "pushState" : "replaceState"](null, "", address());
}

/** Take the state from the address; what it does not name is as at first. */
function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const place = (name, other) => { const found = index.scorers.indexOf(given.get(name)); return found < 0 ? other : found; };
  state.trajectory = byId.has(given.get("trajectory")) ? given.get("trajectory") : "";
  state.turn = Math.max(0, Number.parseInt(given.get("turn"), 10) || 0);
  state.scorer = place("scorer", index.teacher);
  state.before = place("before", defaultBefore());
  state.colour = Object.hasOwn(MODES, given.get("colour") ?? "") ? given.get("colour") : "divergence";
  for (const name of ["q", ...FILTERS]) state[name] = given.get(name) ?? "";
}

/** The scorer that by its name is the student before distillation, or any but the teacher. */
function defaultBefore() {
  const others = index.scorers.map((name, n) => [name, n]).filter(([, n]) => n !== index.teacher);
  return (others.find(([name]) => /reference|initial|student|before|base/.test(name)) ?? others[0] ?? ["", 0])[1];
}

function fillControls() {
  const names = index.scorers.map((_, n) => option(String(n), shortName(n)));
  $("scorer").replaceChildren(...(names.length ? names : [option("0", "none stored")]));
  $("before").replaceChildren(...index.scorers.map((_, n) => option(String(n), shortName(n))));
  $("colour").replaceChildren(...Object.entries(MODES).map(([name, mode]) => option(name, mode.label)));
}

function showControls() {
  for (const name of ["q", ...FILTERS]) $(name).value = state[name];
  $("scorer").value = String(state.scorer);
  $("before").value = String(state.before);
  $("colour").value = state.colour;
  $("before-label").hidden = state.colour !== "provenance" || index.scorers.length < 2;
}

function showCount() {
  const share = now.progress < 1 ? ` · searching, ${Math.round(100 * now.progress)} %` : "";
  const all = now.shown.length === rows;
  $("count").textContent = (all ? count(rows, "trajectory", "trajectories") : `${now.shown.length.toLocaleString("en")} of ${count(rows, "trajectory", "trajectories")}`) + share;
  $("clear").hidden = !["q", ...FILTERS].some((name) => state[name] && name !== "sort");
}

function refreshList() {
  now.shown = listed(state, now.hits);
  showList(now.shown, state.scorer);
  markRow(byId.get(state.trajectory) ?? null);
  showCount();
}

function startSearch() {
  endSearch();
  now.hits = null;
  now.progress = 1;
  if (terms(state.q).length) {
    now.hits = new Set();
    now.progress = 0;
    search(state.q, (hits, progress) => { Object.assign(now, { hits, progress }); refreshList(); });
  }
  highlight(state.q);
  refreshList();
}

/** Show the trajectory that the state names, at its turn. */
async function open() {
  const row = byId.get(state.trajectory);
  document.body.classList.toggle("open", row !== undefined);
  markRow(row ?? null);
  hideHover();
  if (row === undefined) return overview();
  const item = now.row === row ? now.item : await trajectory(row);
  if (byId.get(state.trajectory) !== row) return; // another one was asked for meanwhile
  Object.assign(now, { item, row });
  now.view = showTrajectory(item, choice(), actions);
  $("detail").scrollTop = 0;
  if (state.turn) goTo(state.turn);
}

const actions = {
  turn: (k) => { state.turn = k + 1; keepAddress(); goTo(k + 1); },
  step: (by) => neighbour(by),
  list: () => { state.trajectory = ""; state.turn = 0; keepAddress(true); open(); },
  address: (k) => address({ turn: k + 1 }),
  built: () => highlight(state.q),
  link: async () => {
    try { await navigator.clipboard.writeText(location.href); $("said").textContent = "Link copied"; } catch { window.prompt("Link", location.href); }
  },
};

/** What the page says where no trajectory is chosen. */
function overview() {
  Object.assign(now, { item: null, row: null });
  const won = distinct("success").find(([value]) => value === true)?.[1] ?? 0;
  const stops = distinct("stop").map(([name, n]) => el("li", {}, `${words(name)} ${Math.round((100 * n) / rows)} %`, el("span", { class: "quiet" }, `  ${index.stops[name] ?? ""}`)));
  $("detail").replaceChildren(el("section", { class: "overview" },
    el("h2", {}, count(rows, "trajectory", "trajectories")),
    el("p", {}, `${won.toLocaleString("en")} succeeded (${Math.round((100 * won) / rows)} %). `, "Choose one on the left, or press ", el("kbd", {}, "j"), "; ", el("kbd", {}, "?"), " shows all keys."),
    el("h3", {}, "Ended by"), el("ul", {}, ...stops),
    index.facts.method ? el("p", {}, el("b", {}, "Method: "), index.facts.method) : null,
    index.facts.schedule ? el("p", {}, el("b", {}, "Depth schedule: "), index.facts.schedule) : null,
    index.notes.length ? el("div", { class: "notes", role: "note" }, el("h3", {}, "Notes"), el("ul", {}, ...index.notes.map((note) => el("li", {}, note)))) : null));
}

function choose(row) {
  state.trajectory = cell("id", row);
  state.turn = 0;
  keepAddress(true);
  return open();
}

function neighbour(by) {
  if (!now.shown.length) return;
  const here = now.shown.indexOf(now.row);
  const next = here < 0 ? (by > 0 ? 0 : now.shown.length - 1) : Math.max(0, Math.min(now.shown.length - 1, here + by));
  state.trajectory = cell("id", now.shown[next]);
  state.turn = 0;
  keepAddress();
  open();
}

/** Bring a turn, from 1, into sight. */
function goTo(turn) {
  const k = Math.min(turn, now.item.turns.length) - 1;
  if (!$(`turn-${k}`)) now.view.complete();
  document.querySelector(".turn.current")?.classList.remove("current");
  document.querySelector(".hit.current")?.classList.remove("current");
  const node = $(`turn-${k}`);
  if (!node) return;
  node.classList.add("current");
  document.querySelector(`.hit[data-turn="${k}"]`)?.classList.add("current");
  node.scrollIntoView({ block: "start" });
}

function turnBy(by) {
  if (!now.item?.turns.length) return;
  const top = $("detail").getBoundingClientRect().top;
  const inSight = (node) => { const box = node.getBoundingClientRect(); return box.bottom > top && box.top < innerHeight; };
  let here = state.turn;
  if (here && !($(`turn-${here - 1}`) && inSight($(`turn-${here - 1}`)))) { // scrolled away: go on from what is in sight
    const seen = [...document.querySelectorAll(".turn")].find((node) => node.getBoundingClientRect().bottom > top + 20);
    if (seen) here = Number(seen.id.slice(5)) + 1 - (by > 0 ? 1 : 0);
  }
  actions.turn(Math.max(1, Math.min(now.item.turns.length, here + by)) - 1);
}

/** A control changed: take its value, and show what follows. */
function changed(name, value) {
  state[name] = value;
  if (name === "q") startSearch();
  else if (["scorer", "before", "colour"].includes(name)) {
    showControls();
    if (name === "scorer") refreshList();
    if (now.item && name === "scorer") redraw();
    else if (now.item) reshade(now.item, choice());
  } else refreshList();
  keepAddress();
}

/** Draw the trajectory again where it stands. */
function redraw() {
  const top = $("detail").scrollTop;
  now.view = showTrajectory(now.item, choice(), actions);
  now.view.complete();
  $("detail").scrollTop = top;
  if (state.turn) $(`turn-${state.turn - 1}`)?.classList.add("current");
}

const cycle = (id) => {
  const select = $(id), next = (select.selectedIndex + 1) % select.options.length;
  select.selectedIndex = next;
  select.dispatchEvent(new Event("change"));
  $("said").textContent = `${id}: ${select.selectedOptions[0]?.textContent}`;
};

const dark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

function toggleTheme() {
  document.documentElement.dataset.theme = dark() ? "light" : "dark";
  memory.set("theme", document.documentElement.dataset.theme);
}

const KEYS = {
  j: () => neighbour(1), k: () => neighbour(-1), n: () => turnBy(1), p: () => turnBy(-1), s: () => cycle("scorer"), c: () => cycle("colour"),
  t: toggleTheme, "/": () => $("q").focus(), "?": () => $("help").showModal(),
};

function setUpKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
    if (event.target.matches("input, select, textarea")) {
      if (event.key === "Escape") { event.target.blur(); $("list").focus({ preventScroll: true }); }
      return;
    }
    if (event.target === $("list") && ["ArrowDown", "ArrowUp"].includes(event.key)) {
      event.preventDefault();
      return neighbour(event.key === "ArrowDown" ? 1 : -1);
    }
    if (!KEYS[event.key]) return;
    event.preventDefault();
    KEYS[event.key]();
  });
}

function setUpControls() {
  let typing = 0;
  $("q").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(() => changed("q", $("q").value), 160); });
  for (const name of FILTERS) $(name).addEventListener(["from", "to"].includes(name) ? "input" : "change", () => changed(name, $(name).value));
  for (const name of ["scorer", "before"]) $(name).addEventListener("change", () => changed(name, Number($(name).value)));
  $("colour").addEventListener("change", () => changed("colour", $("colour").value));
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("clear").addEventListener("click", () => {
    for (const name of ["q", ...FILTERS]) if (name !== "sort") state[name] = "";
    showControls();
    startSearch();
    keepAddress();
  });
  $("theme").addEventListener("click", toggleTheme);
  $("keys").addEventListener("click", () => $("help").showModal());
  document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); $("detail").focus(); });
  let width = innerWidth;
  addEventListener("resize", () => { if (now.item && width !== innerWidth) { width = innerWidth; redraw(); } });
  for (const name of ["popstate", "hashchange"]) addEventListener(name, () => { if (address() !== location.hash) follow(); });
}

/** Show what the address says. */
function follow() {
  readAddress();
  showControls();
  startSearch();
  return open();
}

async function start() {
  const theme = memory.get("theme");
  if (theme) document.documentElement.dataset.theme = theme;
  await readIndex();
  for (let row = 0; row < rows; row++) byId.set(cell("id", row), row);
  $("run").textContent = index.run;
  $("about").textContent = [index.facts.method, index.facts.schedule].filter(Boolean).join(" · ");
  fillControls();
  fillFilters();
  setUpList(choose);
  setUpHover(() => ({ item: now.item, choice: choice() }));
  setUpControls();
  setUpKeys();
  await follow();
  performance.mark("ready");
  document.body.dataset.ready = "true";
}

start().catch((error) => {
  $("detail").replaceChildren(el("p", { class: "fatal", role: "alert" }, `This page could not be read: ${error.message}`));
  throw error;
});
