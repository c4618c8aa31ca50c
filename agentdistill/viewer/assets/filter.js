// Which trajectories are listed, in which order, and the search through all text.

const option = (value, label) => el("option", { value }, label);

/** Fill the filters' choices from what the run holds; a filter that could not tell anything apart is hidden. */
function fillFilters() {
  const offer = (id, options) => {
    $(id).replaceChildren(...options.map(([value, label]) => option(value, label)));
    $(id).closest("label").hidden = options.length < 2;
  };
  const named = (id, all, shown = words) => {
    const found = distinct(id);
    offer(id, found.length < 2 ? [["", all]] : [["", all], ...found.map(([value, n]) => [String(value), `${shown(value) || "other"} (${n})`])]);
  };
  offer("success", [["", "all"], ["true", "✓ success"], ["false", "✗ failure"]]);
  named("stop", "any reason");
  named("env", "all", (name) => name);
  if (distinct("type").length <= 60) named("type", "all", (name) => name);
  else offer("type", []);
  const batches = [...new Set(Array.isArray(index.rows.batch) ? index.rows.batch : index.rows.batch.values)];
  const training = batches.some((name) => name.startsWith("iter-"));
  offer("batch", [["", "all"], ...(training ? [["training", "training iterations"]] : []),
    ...batches.filter((name) => !name.startsWith("iter-")).map((name) => [name, name])]);
  if ($("batch").options.length < 3) $("batch").closest("label").hidden = true;
  offer("kl", index.scorers.length ? [["", "any"], ["0.01", "highest 1 %"], ["0.1", "highest 10 %"], ["0.25", "highest 25 %"]] : []);
  const errors = distinct("errors").some(([n]) => n > 0);
  offer("tools", distinct("calls").some(([n]) => n > 0) ? [["", "all"], ...(errors ? [["some", "with errors"]] : []), ["none", "without errors"]] : []);
  $("from").closest("label").hidden = !training;
  offer("sort", [["", "order of play"], ...(index.scorers.length ? [["kl", "highest KL"], ["kl_max", "highest KL of a turn"]] : []),
    ["reward", "highest reward"], ["-reward", "lowest reward"], ["turns", "most turns"], ["tokens", "most tokens"],
    ...(errors ? [["errors", "most tool errors"]] : []), ["task", "task"]]);
}

const FILTERS = ["success", "stop", "type", "env", "batch", "kl", "tools", "from", "to", "sort"];

const ratio = (row, scorer, name = "kl") => cell(name, row)[scorer] ?? NaN;

/** The mean KL above which a share of the trajectories lies, under a scorer. */
function threshold(scorer, share) {
  const values = [];
  for (let row = 0; row < rows; row++) if (Number.isFinite(ratio(row, scorer))) values.push(ratio(row, scorer));
  values.sort((a, b) => b - a);
  return values.length ? values[Math.min(values.length - 1, Math.ceil(values.length * share) - 1)] : Infinity;
}

/** The listed trajectories, in order. `hits` is a set of rows, or null where nothing is searched. */
function listed(state, hits) {
  const bound = state.kl ? threshold(state.scorer, Number(state.kl)) : -Infinity;
  const whole = (text) => (/^\d+$/.test(text.trim()) ? Number(text) : null);
  const from = whole(state.from), to = whole(state.to);
  const out = [];
  for (let row = 0; row < rows; row++) {
    const iteration = cell("iteration", row);
    const kept =
      (!hits || hits.has(row)) &&
      (!state.success || String(cell("success", row)) === state.success) &&
      ["stop", "type", "env"].every((name) => !state[name] || cell(name, row) === state[name]) &&
      (!state.batch || (state.batch === "training" ? iteration !== null : cell("batch", row) === state.batch)) &&
      (!state.kl || ratio(row, state.scorer) >= bound) &&
      (!state.tools || (cell("errors", row) > 0) === (state.tools === "some")) &&
      (from === null || (iteration !== null && iteration >= from)) &&
      (to === null || (iteration !== null && iteration <= to));
    if (kept) out.push(row);
  }
  return sorted(out, state);
}

function sorted(found, { sort, scorer }) {
  if (!sort) return found;
  if (sort === "task") return found.sort((a, b) => cell("task", a).localeCompare(cell("task", b), "en", { numeric: true }) || a - b);
  const [name, sign] = sort.startsWith("-") ? [sort.slice(1), -1] : [sort, 1];
  const keys = new Map(found.map((row) => {
    const value = name.startsWith("kl") ? ratio(row, scorer, name) : cell(name, row);
    return [row, Number.isFinite(value) ? sign * value : -Infinity];
  }));
  return found.sort((a, b) => keys.get(b) - keys.get(a) || a - b || 0);
}

/** Words that all have to occur; what stands in quotation marks is one. */
const terms = (query) => [...query.toLowerCase().matchAll(/"([^"]+)"?|(\S+)/g)].map((found) => found[1] ?? found[2]);

let searching = 0;

/** Search block by block; `tell(hits, share done)` hears of the progress, and last with 1. A later search ends this one. */
async function search(query, tell) {
  const mine = ++searching, wanted = terms(query), hits = new Set();
  const byChunk = new Map();
  for (let row = 0; row < rows; row++) {
    const [chunk] = cell("chunk", row);
    if (!byChunk.has(chunk)) byChunk.set(chunk, []);
    byChunk.get(chunk).push(row);
  }
  let told = performance.now(), done = 0;
  for (const [chunk, members] of byChunk) {
    const texts = await unpack(`text-${chunk}`);
    if (mine !== searching) return;
    for (const row of members) {
      const hay = haystack(row, texts[cell("chunk", row)[1]]);
      if (wanted.every((term) => hay.includes(term))) hits.add(row);
    }
    done++;
    if (performance.now() - told > 120) {
      tell(hits, done / byChunk.size);
      told = performance.now();
      await breathe();
      if (mine !== searching) return;
    }
  }
  tell(hits, 1);
}

const endSearch = () => { searching++; };
