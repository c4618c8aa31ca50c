// How tokens are shaded. A mode gives a token a class: `p1`…`p5` and `m1`…`m5` for signed values, `q1`…`q5` for sizes.

const BOUNDS = { nats: [0.05, 0.2, 0.6, 1.5, 4], entropy: [0.1, 0.3, 0.7, 1.4, 2.5], weight: [0.2, 0.4, 0.6, 0.8, 1] };
const PROVENANCE = ["shared", "teacher", "student", "boosted"];
const PROVENANCE_WORDS = {
  shared: "all three say it about as readily", teacher: "the teacher would say it, the student before would not",
  student: "the student before would say it, the teacher would not", boosted: "distillation moved the student away from both",
};

const level = (size, bounds) => bounds.filter((bound) => size >= bound).length;
const signed = (value, bounds) => (Number.isNaN(value) || !level(Math.abs(value), bounds) ? "" : (value > 0 ? "p" : "m") + level(Math.abs(value), bounds));
const sized = (value, bounds) => (Number.isNaN(value) || !level(value, bounds) ? "" : "q" + level(value, bounds));

const scored = (item, scorer) => item.numbers.scores[scorer];
const at = (parts, turn, token) => real(parts?.[turn]?.[token]);
const student = (item, turn, token) => at(item.numbers.student, turn, token);
const gap = (item, scorer, turn, token) => student(item, turn, token) - at(scored(item, scorer)?.logprobs, turn, token);

/** Modes by name: label, the class of a token, and the legend; `has` says whether a trajectory can be shown in it. */
const MODES = {
  divergence: {
    label: "divergence", bounds: "nats", ends: ["scorer finds it likelier", "student finds it likelier"],
    unit: "nats a token, student − scorer",
    has: (item, { scorer }) => Boolean(scored(item, scorer)?.logprobs),
    shade: (item, { scorer }, turn, token) => signed(gap(item, scorer, turn, token), BOUNDS.nats),
  },
  scorer: {
    label: "scorer's surprise", bounds: "nats", unit: "nats, −log-prob under the scorer",
    has: (item, { scorer }) => Boolean(scored(item, scorer)?.logprobs),
    shade: (item, { scorer }, turn, token) => sized(-at(scored(item, scorer)?.logprobs, turn, token), BOUNDS.nats),
  },
  student: {
    label: "student's surprise", bounds: "nats", unit: "nats, −log-prob under the student",
    has: (item) => item.numbers.student.some((turn) => turn.length),
    shade: (item, _, turn, token) => sized(-student(item, turn, token), BOUNDS.nats),
  },
  entropy: {
    label: "scorer's entropy", bounds: "entropy", unit: "nats, entropy of the scorer's next token",
    has: (item, { scorer }) => Boolean(scored(item, scorer)?.entropy),
    shade: (item, { scorer }, turn, token) => sized(at(scored(item, scorer)?.entropy, turn, token), BOUNDS.entropy),
  },
  advantage: {
    label: "advantage", bounds: "nats", ends: ["made likelier", "made less likely"], unit: "advantage in the run's update",
    has: (item) => Boolean(item.numbers.advantage),
    shade: (item, _, turn, token) => signed(-at(item.numbers.advantage, turn, token), BOUNDS.nats),
  },
  weight: {
    label: "step weight", bounds: "weight", unit: "weight of the step",
    has: (item, choice) => Boolean(weights(item, choice)),
    shade: (item, choice, turn) => sized(real(weights(item, choice)?.[turn]), BOUNDS.weight),
  },
  provenance: {
    label: "provenance", unit: "of each step",
    has: (item, choice) => Boolean(classes(item, choice)),
    shade: (item, choice, turn) => PROVENANCE[classes(item, choice)?.[turn]] ?? "",
  },
};

/** The step weights to show: the run's own where it has some that are not SOD's, else SOD's under the chosen scorer. */
function weights(item, { scorer }) {
  const own = item.numbers.weight && (index.facts.gate || !["", "sod"].includes(index.facts.weights));
  return own ? item.numbers.weight : item.numbers.sod[scorer];
}

/** What those weights are called; SOD's are the run's own where they are those of its update. */
function weightsLabel(item, choice) {
  const { weights: kind, gate } = index.facts;
  if (item.numbers.weight && (gate || !["", "sod"].includes(kind))) return [kind || "no weight", gate && `gate ${gate}`].filter(Boolean).join(" × ");
  const shown = weights(item, choice), own = kind === "sod" && item.numbers.weight?.every((value, k) => value === shown?.[k]);
  return own ? "SOD weight" : "SOD weight, had it been used";
}

/** Provenance classes by turn under the chosen teacher and student before. */
const classes = (item, { scorer, before }) => item.numbers.provenance[`${scorer},${before}`];

/** The mode that is asked for, or the first that this trajectory can be shown in. */
const modeFor = (item, choice) => [choice.colour, "divergence", "student"].find((name) => MODES[name]?.has(item, choice)) ?? "";

/** A legend of a mode, with the bounds of its shades. */
function legend(name, wanted) {
  const note = name === wanted ? null : el("span", { class: "missing" }, `no ${MODES[wanted].label} is stored here`);
  if (!name) return el("p", { class: "legend" }, "No log-probs are stored with this trajectory.");
  const mode = MODES[name];
  if (name === "provenance") {
    const keys = PROVENANCE.map((kind) => el("span", { class: "key", title: PROVENANCE_WORDS[kind] }, el("b", { class: `swatch ${kind}` }, "a step"), kind));
    return el("p", { class: "legend" }, ...keys, note);
  }
  const swatch = (kind, n) => el("b", { class: `swatch ${kind}${n}` }, `${BOUNDS[mode.bounds][n - 1]}`);
  const up = [1, 2, 3, 4, 5];
  if (!mode.ends) return el("p", { class: "legend" }, ...up.map((n) => swatch("q", n)), el("span", {}, mode.unit), note);
  const [left, right] = mode.ends;
  return el("p", { class: "legend" }, el("span", {}, left), ...up.toReversed().map((n) => swatch("m", n)), el("b", { class: "swatch" }, "0"),
    ...up.map((n) => swatch("p", n)), el("span", {}, right), el("span", { class: "quiet" }, mode.unit), note);
}
