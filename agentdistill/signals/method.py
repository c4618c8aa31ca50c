"""A method is one choice on each axis of the same equation; presets are published combinations.

A_t = i_t · (kd_coef · g_t · w_t · (signal_t − baseline_t) + rl_coef · A_rl)   (policy-gradient form)
L   = Σ_t c_t · (ppo(A_t) + kd_coef · i_t · g_t · w_t · D_t)                   (D: the divergence, where one is set)

`w` is the step weight, `g` the gate, `i` the importance weight (1 unless one is chosen); `c` the aggregation's coefficients
over the selected tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetPydanticSchema,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic import ValidationInfo as Info
from pydantic_core.core_schema import float_schema, no_info_wrap_validator_function
from torch import Tensor

from agentdistill.errors import UserError, nearest
from agentdistill.signals.parts import Parts
from agentdistill.signals.registry import (
    AGGREGATIONS,
    BASELINES,
    COEFFICIENTS,
    DIVERGENCES,
    GATES,
    IMPORTANCE,
    RATIOS,
    RL_TERMS,
    SELECTIONS,
    SIGNALS,
    STEP_WEIGHTS,
    Choice,
    Measure,
    Registry,
    explain,
)
from agentdistill.signals.surrogate import clips, ppo
from agentdistill.signals.table import TokenTable
from agentdistill.trajectory import BoolArray, FloatArray
from agentdistill.wording import no_truth_for_a_number, shown

AXES: dict[str, Registry[Any]] = {
    "signal": SIGNALS,
    "baseline": BASELINES,
    "selection": SELECTIONS,
    "step_weight": STEP_WEIGHTS,
    "gate": GATES,
    "rl": RL_TERMS,
    "ratio": RATIOS,
    "importance": IMPORTANCE,
    "divergence": DIVERGENCES,
    "aggregation": AGGREGATIONS,
}

PRESETS: dict[str, dict[str, Any]] = {}


@dataclass(frozen=True, slots=True)
class Origin:
    """What belongs to a preset beside its axes: where it was published, and its depth schedule."""

    source: str
    schedule: str | None


ORIGINS: dict[str, Origin] = {}


@dataclass(frozen=True, slots=True)
class Streams:
    """What the trainer consumes: one value a row of the token table, all 0 off `mask`.

    Attributes:
        advantage: `[n]` detached advantage of the policy-gradient surrogate.
        kd_weight: `[n]` factor of the divergence, `kd_coef · g · w · i`, `i` the importance weight.
        mask: `[n]` tokens that carry loss: those the selection kept.
        coef: `[n]` aggregation coefficients; the loss is `Σ coef · loss_t`.
        anchor: `[n]` log-probability that the surrogate's ratio is taken against; None where no advantage makes one.
        distilled: `[n]` the distillation part of the advantage, for metrics, as the next two.
        step_weight: `[n]` the step weight `w` alone.
        gate: `[n]` the gate `g` alone.
    """

    advantage: FloatArray
    kd_weight: FloatArray
    mask: BoolArray
    coef: FloatArray
    anchor: FloatArray | None
    distilled: FloatArray
    step_weight: FloatArray
    gate: FloatArray

    @property
    def silent(self) -> Streams:
        """The same without the distillation term."""
        return replace(self, advantage=self.advantage - self.distilled, kd_weight=np.zeros_like(self.kd_weight))


def _coefficient(value: Any, number: ValidatorFunctionWrapHandler) -> Choice[float] | float:
    """A number of at least 0, or what `COEFFICIENTS` resolves."""
    if isinstance(value, Mapping | Choice):
        return COEFFICIENTS.resolve(value)
    plain: float = number(no_truth_for_a_number(float, value))
    return plain


Coefficient = Annotated[
    Choice[float] | float,
    GetPydanticSchema(lambda _source, _handler: no_info_wrap_validator_function(_coefficient, float_schema(ge=0))),
]


def _named(name: str) -> Any:
    """A default that is resolved like any other value, once every module has registered its functions."""
    return Field(default=name)


class Method(BaseModel):
    """Every axis takes a registered name or a mapping of `kind` and settings; see `Method.load` for presets.

    Attributes:
        signal: per-token distillation signal of the policy-gradient form.
        baseline: control variate, subtracted from the signal.
        selection: which tokens carry loss.
        step_weight: weight of each step; it multiplies the distillation term only.
        gate: a further factor of the distillation term, by token or episode.
        rl: reward term.
        ratio: what the surrogate's probability ratio is taken against.
        importance: weight of a token that another policy than the student drew; it multiplies both terms.
        divergence: differentiated through the student instead of a signal: over the full vocabulary, or of sampled tokens.
        aggregation: how per-token losses become one number.
        kd_coef, rl_coef: factors of the distillation and the reward term: a number of at least 0, or a mapping of `kind` and
            settings where it changes with the iteration (`registry.COEFFICIENTS`).
        clip_low, clip_high: how far the probability ratio may fall below and rise above 1.
        dual_clip: bound on the ratio for negative advantages, or None.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, arbitrary_types_allowed=True, allow_inf_nan=False, validate_default=True
    )

    signal: Choice[FloatArray] = _named("none")
    baseline: Choice[FloatArray] = _named("none")
    selection: Choice[BoolArray] = _named("none")
    step_weight: Choice[FloatArray] = _named("none")
    gate: Choice[FloatArray] = _named("none")
    rl: Choice[FloatArray] = _named("none")
    ratio: Choice[FloatArray] = _named("old")
    importance: Choice[FloatArray] = _named("none")
    divergence: Choice[Any] = _named("none")
    aggregation: Choice[FloatArray] = _named("token-mean")
    kd_coef: Coefficient = 1.0
    rl_coef: Coefficient = 1.0
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    clip_high: float = Field(default=0.28, gt=0)
    dual_clip: float | None = Field(default=3.0, gt=1)

    @field_validator("clip_low", "clip_high", "dual_clip", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: object, info: Info) -> object:
        return no_truth_for_a_number(cls.model_fields[str(info.field_name)].annotation, value)

    @field_validator(*AXES, mode="plain")
    @classmethod
    def _resolve(cls, value: object, info: Info) -> Choice[Any]:
        return AXES[str(info.field_name)].resolve(value)

    @field_serializer(*AXES)
    def _spec(self, choice: Choice[Any]) -> str | dict[str, Any]:
        return choice.spec

    @field_serializer("kd_coef", "rl_coef")
    def _factor(self, value: Choice[float] | float) -> float | str | dict[str, Any]:
        return value.spec if isinstance(value, Choice) else value

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        signal, exact = self.signal.name != "none", self.exact
        if signal and exact:
            raise UserError(
                f"method: signal '{self.signal.name}' and divergence '{self.divergence.name}' are the same "
                "distillation term twice, sampled and exact; set one of them to 'none'"
            )
        if self.baseline.name != "none" and not signal:
            raise UserError(
                f"method: baseline '{self.baseline.name}' has no signal to correct; set method.signal or drop the baseline"
            )
        if self.step_weight.name != "none" and not (signal or exact):
            raise UserError(
                f"method: step_weight '{self.step_weight.name}' weighs the distillation term and there is none; "
                "set method.signal or method.divergence"
            )
        if self.gate.name != "none" and not (signal or exact):
            raise UserError(
                f"method: gate '{self.gate.name}' opens and shuts the distillation term and there is none; "
                "set method.signal or method.divergence"
            )
        if self.ratio.name != "old" and not signal and self.rl.name == "none":
            raise UserError(
                f"method: ratio '{self.ratio.name}' is of the policy-gradient surrogate, and there is none; set method.signal "
                "or method.rl, or drop the ratio"
            )
        if not self.distils and not self.rewarded:
            raise UserError(
                "method: nothing to learn from; set method.signal, method.divergence or method.rl, with a coefficient above 0"
            )
        return self

    @property
    def distils(self) -> bool:
        """Whether there is a distillation term, sampled or exact, that is not multiplied by 0."""
        return (self.signal.name != "none" or self.exact) and self.kd_coef != 0

    @property
    def rewarded(self) -> bool:
        """Whether there is a reward term that is not multiplied by 0."""
        return self.rl.name != "none" and self.rl_coef != 0

    @property
    def exact(self) -> bool:
        """Whether distillation goes through a divergence, exact over the vocabulary or of sampled tokens."""
        return self.divergence.name != "none"

    @property
    def measures(self) -> dict[str, Measure]:
        """Columns that scoring has to fill from full distributions (see `Registry.register`)."""
        return {name: measure for axis in AXES for name, measure in getattr(self, axis).measures.items()}

    @property
    def needs(self) -> frozenset[str]:
        """What has to be provided: a subset of `registry.CAPABILITIES`."""
        return frozenset().union(*(getattr(self, axis).needs for axis in AXES))

    @property
    def top(self) -> int | None:
        """How many of the teacher's likeliest ids are all it reads of full distributions; None: it reads all of them."""
        reading = [choice for axis in AXES if "distribution" in (choice := getattr(self, axis)).needs]
        tops = [choice.top for choice in reading]
        return None if None in tops else max(tops, default=0)

    def wanting(self, need: str, does: str = "") -> str:
        """Who needs a capability, as errors say it: `baseline 'vopd'`, and what they do, in the right number.

        Args:
            does: of several: `ask for`, which becomes `asks for` where it is one.
        """
        named = [f"{axis} '{getattr(self, axis).name}'" for axis in AXES if need in getattr(self, axis).needs]
        verb, space, rest = does.partition(" ")
        return " ".join(filter(None, [" and ".join(named), f"{verb}{'s' * (len(named) == 1 and bool(verb))}{space}{rest}"]))

    @classmethod
    def load(cls, spec: str | Mapping[str, Any] | Method) -> Method:
        """The method that a config describes.

        Args:
            spec: a preset's name; or a mapping of axes and numbers, with an optional `preset` that it changes. In a
                mapping over a preset, an axis without `kind` changes settings of the preset's choice:
                `{"preset": "sod", "step_weight": {"delta": 0.1}}`.

        Raises:
            UserError: for an unknown preset, axis, name or setting (the nearest is named), a wrong type, or axes that
                do not make sense together.
        """
        if isinstance(spec, Method):
            return spec
        if isinstance(spec, str):
            spec = {"preset": spec}
        if not isinstance(spec, Mapping):
            raise UserError(f"method must be a preset's name or a mapping of axes, not {shown(spec)}")
        changes = {str(key): value for key, value in spec.items() if key != "preset"}
        axes = dict(_preset(spec["preset"])) if "preset" in spec else {}
        for key, value in changes.items():
            axes[key] = _merge(axes.get(key), value) if key in AXES else value
        try:
            return cls(**axes)
        except ValidationError as error:
            raise UserError(explain(error, "method", [*cls.model_fields, "preset"])) from error

    def coefficient(self, name: Literal["kd_coef", "rl_coef"], iteration: int) -> float:
        """The factor `name` at an iteration, from 1."""
        value: Choice[float] | float = getattr(self, name)
        return float(value(iteration)) if isinstance(value, Choice) else value

    def apply(self, table: TokenTable, iteration: int = 1) -> Streams:
        """The streams of a batch. Pure: reads only the columns that its choices need.

        Args:
            iteration: from 1, for coefficients that change.

        Raises:
            UserError: for a missing column, or a choice whose values are not finite, one a row, on tokens with loss; for a
                reward that is not finite where one is read, be it by a divergence only.
        """
        if "rewards" in self.needs:
            table.by_trajectory("reward")
        weight, gate = self._column("step_weight", table), self._column("gate", table)
        importance = self._column("importance", table)
        factor = self.coefficient("kd_coef", iteration) * gate * weight * importance
        distilled = factor * (self._column("signal", table) - self._column("baseline", table))
        advantage = distilled + self.coefficient("rl_coef", iteration) * importance * self._column("rl", table)
        mask = table.mask & np.asarray(self.selection(table, table.mask), dtype=bool)
        advantage = np.where(mask, advantage, 0.0)
        return Streams(
            advantage=advantage,
            kd_weight=np.where(mask, factor, 0.0),
            mask=mask,
            coef=self.aggregation(table, mask),
            anchor=self._column("ratio", table) if advantage.any() else None,
            distilled=np.where(mask, distilled, 0.0),
            step_weight=weight,
            gate=gate,
        )

    def surrogate(self, logprob: Tensor, old_logprob: Tensor, advantage: Tensor) -> Tensor:
        """`[n]` per-token policy-gradient loss with this method's clips (see `surrogate.ppo`)."""
        return ppo(
            logprob, old_logprob, advantage,
            clip_low=self.clip_low, clip_high=self.clip_high, dual_clip=self.dual_clip,
        )  # fmt: skip

    def divergence_loss(self, parts: Parts) -> Tensor:
        """`[n]` nats: the divergence of `n` tokens, differentiable in the student; zeros where none is set.

        Only what the divergence needs is asked of `parts` (see `registry.DIVERGENCES`).
        """
        if not self.exact:
            return torch.zeros_like(parts.logprob)
        loss: Tensor = self.divergence(*parts.data(self.divergence.needs))
        return loss

    def clips(self, logprob: Tensor, old_logprob: Tensor, advantage: Tensor) -> Tensor:
        """`[3, n]` bool: where the lower, upper and dual clip stop the surrogate's gradient (see `surrogate.clips`)."""
        return clips(
            logprob, old_logprob, advantage,
            clip_low=self.clip_low, clip_high=self.clip_high, dual_clip=self.dual_clip,
        )  # fmt: skip

    def _column(self, axis: str, table: TokenTable) -> FloatArray:
        """What the axis' choice says of each token, checked, 0 off the mask."""
        choice: Choice[FloatArray] = getattr(self, axis)
        values = np.asarray(choice(table), dtype=np.float64)
        if values.shape != (len(table),):
            raise UserError(f"{axis} '{choice.name}' gave shape {values.shape} for a table of {len(table)} rows")
        bad = np.flatnonzero(table.mask & ~np.isfinite(values))
        if len(bad):
            row = bad[0]
            raise UserError(
                f"{axis} '{choice.name}' gave {values[row]} at row {row} (trajectory {table.trajectory[row]}, "
                f"turn {table.turn[row]}); it must be finite on student tokens"
            )
        return np.where(table.mask, values, 0.0)


def register_preset(name: str, *, schedule: str | None = None, source: str = "", **axes: Any) -> None:
    """Name a combination of axes; it is checked when it is loaded.

    Args:
        schedule: the depth schedule that belongs to it, which an experiment without one gets.
        source: where it was published, for the documentation.

    Raises:
        UserError: when the name is taken by other axes.
    """
    if PRESETS.get(name, axes) != axes:
        raise UserError(f"method preset '{name}' is already registered with other axes")
    PRESETS[name], ORIGINS[name] = axes, Origin(source, schedule)


def preset_schedule(spec: object) -> str | None:
    """The depth schedule that belongs to the preset which a method's specification names, or None."""
    name = spec.get("preset") if isinstance(spec, Mapping) else spec
    return ORIGINS[name].schedule if isinstance(name, str) and name in ORIGINS else None


def _preset(name: object) -> dict[str, Any]:
    if not isinstance(name, str):
        raise UserError(f"method.preset must be the name of one preset, not {shown(name)}{nearest('', PRESETS)}")
    if name not in PRESETS:
        raise UserError(f"unknown method preset '{name}'{nearest(name, PRESETS)}")
    return PRESETS[name]


def _merge(base: object, change: object) -> object:
    """`change`, or `base` with its settings changed where `change` is a mapping that names no kind."""
    if not isinstance(change, Mapping) or "kind" in change or base is None:
        return change
    start = base if isinstance(base, Mapping) else {"kind": base}
    return {**start, **change}
