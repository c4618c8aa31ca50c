"""The weights and advantages that another method would have given to stored episodes: no model, no training."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agentdistill import yamltext
from agentdistill.errors import UserError, nearest
from agentdistill.imported import require_played
from agentdistill.signals import AXES, Method, TokenTable
from agentdistill.store import Store
from agentdistill.store_table import stored_table
from agentdistill.training.score import trainable
from agentdistill.training.score_run import experiment_of, setting
from agentdistill.trajectory import FloatArray, IntArray, Trajectory

SMALL = 0.01
"""Weight of a step below which it hardly counts."""
_ITERATION = re.compile(r"iter-([0-9]+)")


@dataclass(slots=True)
class Tally:
    """A method's sums by step index, from 0."""

    weight: FloatArray = field(default_factory=lambda: np.zeros(0))
    small: FloatArray = field(default_factory=lambda: np.zeros(0))
    steps: FloatArray = field(default_factory=lambda: np.zeros(0))
    advantage: FloatArray = field(default_factory=lambda: np.zeros(0))
    tokens: FloatArray = field(default_factory=lambda: np.zeros(0))

    def add(self, method: Method, table: TokenTable, iteration: int) -> None:
        """Take in what a method makes of a batch."""
        streams = method.apply(table, iteration)
        weights, index = table.mean_by_step(streams.step_weight), table.steps.step
        self.weight = _plus(self.weight, np.bincount(index, weights=weights))
        self.small = _plus(self.small, np.bincount(index, weights=weights < SMALL))
        self.steps = _plus(self.steps, np.bincount(index))
        kept = table.step[streams.mask]
        self.advantage = _plus(self.advantage, np.bincount(kept, weights=streams.advantage[streams.mask]))
        self.tokens = _plus(self.tokens, np.bincount(kept))

    def at(self, step: int) -> dict[str, float | None]:
        """Mean weight, share of steps below `SMALL`, and mean advantage of tokens with loss, at a step index."""
        return {
            "weight": _ratio(self.weight, self.steps, step),
            "small": _ratio(self.small, self.steps, step),
            "advantage": _ratio(self.advantage, self.tokens, step),
        }


@dataclass(slots=True)
class WhatIf:
    """What two methods make of the same stored episodes.

    Attributes:
        methods: specifications by `used` (the run's own, where it trained) and `what_if`.
        tallies: their sums, likewise.
        scorer: whose scores stand for the teacher's, or empty.
        kl_by_step, kl_by_turn: sums of `log π − log T` over student tokens, nats, and how many tokens, by index.
    """

    methods: dict[str, Any]
    tallies: dict[str, Tally]
    scorer: str
    episodes: int = 0
    tokens: int = 0
    kl_by_step: tuple[FloatArray, FloatArray] = field(default_factory=lambda: (np.zeros(0), np.zeros(0)))
    kl_by_turn: tuple[FloatArray, FloatArray] = field(default_factory=lambda: (np.zeros(0), np.zeros(0)))

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON can hold it; null where nothing was."""
        steps = len(self.tallies["what_if"].steps)
        return {
            "methods": self.methods, "scorer": self.scorer, "episodes": self.episodes, "tokens": self.tokens,
            "steps": [
                {
                    "step": step, "n": int(self.tallies["what_if"].steps[step]), "kl": _ratio(*self.kl_by_step, step),
                    **{name: tally.at(step) for name, tally in self.tallies.items()},
                }
                for step in range(steps)
            ],
            "turns": [
                {"turn": turn, "tokens": int(self.kl_by_turn[1][turn]), "kl": _ratio(*self.kl_by_turn, turn)}
                for turn in range(len(self.kl_by_turn[1]))
            ],
        }  # fmt: skip

    def tables(self) -> list[tuple[list[str], list[list[str]]]]:
        """Headings and rows: by step index, and the KL by turn."""
        found = self.as_dict()
        names, values = list(self.tallies), ("weight", "small", "advantage")
        heads = {"weight": "weight", "small": f"share < {SMALL}", "advantage": "advantage"}
        by_step = [
            [
                str(row["step"]),
                str(row["n"]),
                _shown(row["kl"]),
                *(_shown(row[name][value]) for value in values for name in names),
            ]
            for row in found["steps"]
        ]
        said = {"used": "used", "what_if": "what if"}
        columns = ["step", "steps", "KL", *(f"{heads[value]}, {said[name]}" for value in values for name in names)]
        by_turn = [[str(row["turn"]), str(row["tokens"]), _shown(row["kl"])] for row in found["turns"]]
        return [(columns, by_step), (["turn", "tokens", "KL"], by_turn)]


def what_if(store: Store, batches: Sequence[str], methods: Mapping[str, Method], scorers: Mapping[str, str]) -> WhatIf:
    """Apply methods to stored batches.

    Args:
        methods: by `used` and `what_if`.
        scorers: whose stored scores fill the columns `teacher` and `reference`, as far as there are such.

    Raises:
        UserError: when a method reads what no stored number says, such as full distributions, or nothing can be trained on.
    """
    out = WhatIf(
        {name: _spec(method) for name, method in methods.items()},
        {name: Tally() for name in methods},
        scorers.get("teacher", ""),
    )
    for batch in batches:
        rows = trainable(store.read(batch, list(scorers.values())))
        if rows:
            _batch(out, batch, rows, methods, scorers)
    if not out.episodes:
        raise UserError(f"no stored episode of {store.path} can be trained on, so no method has anything to say of it")
    return out


def what_if_run(folder: Path, store: Store, text: str, scorer: str, batch: str | None) -> WhatIf:
    """`what_if` for a run's folder: the run's own method beside it where the run trained, and its own teacher by default.

    Raises:
        UserError: as `what_if` and `parse_method`; where several scorers' scores could be meant.
    """
    trained = [name for name in store.batches() if _ITERATION.fullmatch(name)]
    batches = [batch] if batch else trained or store.batches()
    experiment = experiment_of(folder)
    used = experiment.get("method") if trained else None
    methods = {"used": Method.load(used)} if used else {}
    methods["what_if"] = parse_method(text, used)
    store.require_whole([batch] if batch else None)
    first = next((each for each in store.trajectories(batches) if trainable([each])), None)
    there = list(first.scores) if first else []
    own = [name for name in there if not name.startswith("reference:")]
    named = setting(folder, "teacher", "model")
    if not scorer and named not in own and len(own) > 1:
        raise UserError(f"several scorers scored {store.path}: {', '.join(own)}; say which by --scorer NAME")
    chosen = scorer or (named if named in own else own[0] if own else "")
    reference = next((name for name in there if name.startswith("reference:")), "")
    scorers = {"teacher": chosen, "reference": reference}
    return what_if(store, batches, methods, {column: name for column, name in scorers.items() if name})


def _batch(
    out: WhatIf, batch: str, rows: Sequence[Trajectory], methods: Mapping[str, Method], scorers: Mapping[str, str]
) -> None:
    require_played(rows, "judged by a method: what its sampler thought of its tokens is not known")
    table = stored_table(rows, scorers)
    found = _ITERATION.fullmatch(batch)
    for name, method in methods.items():
        try:
            out.tallies[name].add(method, table, int(found[1]) if found else 1)
        except UserError as error:
            whose = "the run's own method" if name == "used" else "that method"
            raise UserError(f"what {whose} makes of batch '{batch}' cannot be told from stored numbers: {error}") from error
    out.episodes += len(rows)
    out.tokens += int(table.is_action.sum())
    if "teacher" in table:
        gap = np.where(table.is_action, table["logprob"] - table["teacher"], 0.0)[table.is_action]
        out.kl_by_step = _sums(out.kl_by_step, table.step[table.is_action], gap)
        out.kl_by_turn = _sums(out.kl_by_turn, table.turn[table.is_action], gap)


def _spec(method: Method) -> dict[str, Any]:
    """The axes and numbers that are not what a method has by default."""
    return {key: value for key, value in method.model_dump(mode="json").items() if value != Method.model_fields[key].default}


def parse_method(text: str, base: object = None) -> Method:
    """A method in a word: `method=sod,delta=0.5`.

    Args:
        text: settings with commas between them. `method` names a preset; an axis (`baseline=vopd`), a number of the method
            (`kd_coef=0.5`) or a setting of an axis (`step_weight.delta=0.5`) changes it; where only one axis has a setting of
            that name, the name is enough (`delta=0.5`).
        base: the specification that is changed where no preset is named.

    Raises:
        UserError: for a word that is none of these, or is so in two ways.
    """
    spec: dict[str, Any] = {"preset": base} if isinstance(base, str) else dict(base) if isinstance(base, Mapping) else {}
    for word in _words(text):
        key, equals, value = (part.strip() for part in word.partition("="))
        if not equals or not key or not value:
            raise UserError(f"--what-if wants settings such as method=sod,delta=0.5, and '{word.strip()}' is not one")
        try:
            read = yamltext.read(value)
        except UserError as error:
            raise UserError(f"in --what-if, the value of {key} {error}") from error
        if key == "method":
            spec = {"preset": read}
            continue
        axis, _, setting = key.rpartition(".") if "." in key else ("", "", key)
        if not axis and setting in Method.model_fields:
            spec[setting] = read
            continue
        axis = axis or _axis_of(setting, Method.load(spec))
        if axis not in AXES:
            raise UserError(f"in --what-if, a method has no axis '{axis}'{nearest(axis, AXES)}")
        before = spec.get(axis, {})
        spec[axis] = {**({"kind": before} if isinstance(before, str) else before), setting: read}
    if not spec:
        raise UserError("--what-if names no method; write method=sod, with settings behind it")
    return Method.load(spec)


def _axis_of(setting: str, method: Method) -> str:
    """The one axis whose choice has a setting of that name."""
    having = [axis for axis in AXES if setting in getattr(method, axis).params]
    if len(having) == 1:
        return having[0]
    if having:
        raise UserError(f"in --what-if, '{setting}' may mean {' or '.join(f'{axis}.{setting}' for axis in having)}; say which")
    known = {name for axis in AXES for name in getattr(method, axis).params} | set(Method.model_fields) | {"method"}
    raise UserError(f"in --what-if, this method has no setting '{setting}'{nearest(setting, known)}")


def _words(text: str) -> list[str]:
    """`text` cut at the commas that stand outside brackets."""
    words, depth = [""], 0
    for character in text:
        depth += (character in "{[") - (character in "}]")
        if character == "," and not depth:
            words.append("")
        else:
            words[-1] += character
    return words


def _plus(a: FloatArray, b: FloatArray | IntArray) -> FloatArray:
    out = np.zeros(max(len(a), len(b)))
    out[: len(a)] += a
    out[: len(b)] += b
    return out


def _sums(before: tuple[FloatArray, FloatArray], index: IntArray, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    return _plus(before[0], np.bincount(index, weights=values)), _plus(before[1], np.bincount(index))


def _ratio(total: FloatArray, count: FloatArray, at: int) -> float | None:
    return float(total[at] / count[at]) if at < min(len(total), len(count)) and count[at] else None


def _shown(value: float | None) -> str:
    return "" if value is None else f"{round(value, 4) + 0.0:.4f}"
