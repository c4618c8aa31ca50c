// The embedded blocks: base64 of gzip of JSON. The index is decoded at once, trajectories when they are looked at.

const KEPT = 24; // decoded blocks

const complete = new Promise((done) => {
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", done, { once: true });
  else done();
});

async function unpack(name) {
  if (!$(name)) await complete; // the page may still be arriving
  const packed = atob($(name).textContent);
  const bytes = new Uint8Array(packed.length);
  for (let at = 0; at < packed.length; at++) bytes[at] = packed.charCodeAt(at);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}

const decoded = new Map(); // block → promise of its trajectories, the least recently used first

function block(name) {
  const found = decoded.get(name) ?? unpack(name);
  decoded.delete(name);
  decoded.set(name, found);
  if (decoded.size > KEPT) decoded.delete(decoded.keys().next().value);
  return found;
}

let index = null; // what `page.py` calls the index
let rows = 0; // how many trajectories there are

async function readIndex() {
  index = await unpack("index");
  rows = index.rows.chunk.length;
}

/** A trajectory's value of a column of the list. */
function cell(name, row) {
  const column = index.rows[name];
  return Array.isArray(column) ? column[row] : column.values[column.at[row]];
}

/** The distinct values of a column, in order of how often they occur. */
function distinct(name) {
  const counts = new Map();
  for (let row = 0; row < rows; row++) counts.set(cell(name, row), (counts.get(cell(name, row)) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1]);
}

/** A trajectory's text and numbers. */
async function trajectory(row) {
  const [chunk, place] = cell("chunk", row);
  const [texts, numbers] = await Promise.all([block(`text-${chunk}`), block(`numbers-${chunk}`)]);
  return { row, ...texts[place], numbers: numbers[place] };
}

/** What a search looks through: all that was said in a trajectory, in lower case. */
function haystack(row, text) {
  const parts = [cell("id", row), cell("task", row), text.error];
  for (const [, content] of text.messages) parts.push(content);
  for (const turn of text.turns) {
    parts.push(turn.pieces.join(""), turn.action ?? "", turn.observation);
    for (const [name, given, result] of turn.calls ?? []) parts.push(name, given, result);
  }
  return parts.join("\n").toLowerCase();
}
