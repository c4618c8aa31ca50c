"""Named, parametrised functions: how signals, weights, divergences, aggregations and schedules are found and set up.

A registered function takes its data by position and its settings by keyword only. The settings' annotations are the
schema: what an experiment file says is checked and coerced against them before anything runs.

    @SIGNALS.register("mine", needs={"teacher"})
    def mine(table: TokenTable, *, scale: float = 1.0) -> FloatArray: ...

    SIGNALS.resolve({"kind": "mine", "scale": 2})(table)
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, create_model, field_validator
from torch import Tensor

from agentdistill.errors import UserError, nearest
from agentdistill.trajectory import BoolArray, FloatArray
from agentdistill.wording import no_truth_for_a_number, place, sentence, shown

R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])

PROVISIONS = {
    "teacher": "the teacher's log-probs of the sampled tokens",
    "distribution": "the teacher's full distributions",
    "topk": "the teacher's most likely ids with their log-probs",
    "rewards": "episode rewards and groups",
    "reference": "a reference model's log-probs of the sampled tokens",
    "reference-distribution": "a reference model's full distributions",
    "ids": "the sampled ids",
    "groups": "several rollouts of each task",
    "demonstrations": "tokens that somebody else than the student wrote",
}
"""What a method may need, in words."""

CAPABILITIES = frozenset(PROVISIONS)

Measure = Callable[[Tensor, Tensor], Tensor]
"""What is measured where both full distributions exist: log-probs of student and teacher `[m, V]` → `[m]`, a column."""


@dataclass(frozen=True, slots=True)
class Choice(Generic[R]):
    """A registered function with its settings filled in; call it with the data.

    Attributes:
        kind: which axis it belongs to, such as `signal`.
        name: the registered name.
        params: every setting, defaults included.
        needs: the capabilities it asks for, from `CAPABILITIES`.
        measures: columns beside `rkl` that scoring has to fill from full distributions, under these settings.
        top: how many of the teacher's likeliest ids, with their log-probs and the mass of the rest, are all it reads of the
            teacher's distributions under these settings; None: all of them.
    """

    kind: str
    name: str
    params: dict[str, Any]
    needs: frozenset[str]
    function: Callable[..., R] = field(repr=False)
    measures: Mapping[str, Measure] = field(default_factory=dict, repr=False, compare=False)
    top: int | None = field(default=None, repr=False, compare=False)

    def __call__(self, *data: Any) -> R:
        """The function's result on `data`, under these settings."""
        return self.function(*data, **self.params)

    @property
    def spec(self) -> str | dict[str, Any]:
        """The specification that resolves to this choice again."""
        return {"kind": self.name, **self.params} if self.params else self.name


@dataclass(frozen=True, slots=True)
class Description:
    """A registered function, what it needs under its default settings, and those settings ("required" without a default)."""

    function: Callable[..., Any]
    needs: frozenset[str]
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Entry(Generic[R]):
    function: Callable[..., R]
    needs: frozenset[str]
    model: type[BaseModel]
    measures: Callable[..., Mapping[str, Measure]] | None
    check: Callable[..., None] | None
    top: Callable[..., int | None] | None


class Registry(Generic[R]):
    """Functions of one kind, all of which return `R`, by name.

    Args:
        kind: what the entries are, as errors call it.
        homes: modules whose import registers the built-in entries; they are imported at the first look-up.
    """

    def __init__(self, kind: str, *homes: str) -> None:
        self.kind = kind
        self._homes = homes
        self._entries: dict[str, _Entry[R]] = {}

    def register(
        self,
        name: str,
        *,
        needs: Iterable[str] = (),
        measures: Callable[..., Mapping[str, Measure]] | None = None,
        check: Callable[..., None] | None = None,
        top: Callable[..., int | None] | None = None,
    ) -> Callable[[F], F]:
        """Decorator that adds a function or class under `name`.

        Args:
            needs: capabilities, from `CAPABILITIES`.
            measures: takes the entry's settings by keyword and gives the columns that the entry reads from the table
                and that scoring must compute from full distributions, by name. Where it gives any, the entry needs
                `teacher` and `distribution`, whether it says so or not.
            check: takes the entry's settings by keyword and raises a `ValueError` that says how they do not fit together.
            top: takes the entry's settings by keyword and gives `Choice.top`.

        Raises:
            UserError: when `name` is taken by another function or a capability is unknown. The same function defined
                again replaces itself, so that a notebook cell can be run twice.
        """
        wanted = frozenset(needs)
        for need in sorted(wanted - CAPABILITIES):
            raise UserError(f"{self.kind} '{name}' needs unknown capability '{need}'{nearest(need, CAPABILITIES)}")

        def add(function: F) -> F:
            taken = self._entries.get(name)
            if taken and _identity(taken.function) != _identity(function):
                raise UserError(f"{self.kind} '{name}' is already registered by {_identity(taken.function)}")
            settings = _settings_model(function, f"{self.kind} '{name}'")
            self._entries[name] = _Entry(function, wanted, settings, measures, check, top)
            return function

        return add

    def names(self) -> list[str]:
        """Every registered name, sorted."""
        self._load_homes()
        return sorted(self._entries)

    def describe(self, name: str) -> Description:
        """What is registered under a name.

        Raises:
            UserError: for an unknown name.
        """
        self._load_homes()
        if name not in self._entries:
            raise UserError(f"unknown {self.kind} '{name}'{nearest(name, self._entries)}")
        entry = self._entries[name]
        fields = entry.model.model_fields.items()
        settings = {key: "required" if field.is_required() else field.default for key, field in fields}
        complete = "required" not in settings.values()
        return Description(entry.function, self.resolve(name).needs if complete else entry.needs, settings)

    def resolve(self, spec: object) -> Choice[R]:
        """The choice that `spec` describes.

        Args:
            spec: a name, or a mapping with `kind` and settings, or a choice of this registry (returned as it is).

        Raises:
            UserError: for an unknown name or setting, a missing one, or a value of the wrong type; the sentence names
                the axis and the nearest valid name.
        """
        self._load_homes()
        if isinstance(spec, Choice) and spec.kind == self.kind:
            return spec
        if isinstance(spec, str):
            name, settings = spec, {}
        elif isinstance(spec, Mapping) and isinstance(spec.get("kind"), str):
            name, settings = str(spec["kind"]), {str(k): v for k, v in spec.items() if k != "kind"}
        else:
            raise UserError(
                f"{self.kind} must be a name or a mapping with 'kind', not {shown(spec)}{nearest('', self._entries)}"
            )
        if name not in self._entries:
            raise UserError(f"unknown {self.kind} '{name}'{nearest(name, self._entries)}")
        entry = self._entries[name]
        try:
            filled = entry.model(**settings)
        except ValidationError as error:
            raise UserError(explain(error, f"{self.kind} '{name}'", entry.model.model_fields)) from error
        params = {key: getattr(filled, key) for key in entry.model.model_fields}
        if entry.check:
            try:
                entry.check(**params)
            except ValueError as error:
                raise UserError(f"{self.kind} '{name}': {error}") from error
        measures = entry.measures(**params) if entry.measures else {}
        needs = entry.needs | {"teacher", "distribution"} if measures else entry.needs
        top = entry.top(**params) if entry.top else None
        return Choice(self.kind, name, params, needs, entry.function, measures, top)

    def _load_homes(self) -> None:
        for home in self._homes:
            importlib.import_module(home)


def explain(error: ValidationError, owner: str, known: Iterable[str]) -> str:
    """The first complaint of a pydantic error as one sentence about `owner`, whose parameters are `known`."""
    first = error.errors(include_url=False)[0]
    name = place(first) or "value"
    if first["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
        return f"{owner} has no parameter '{name}'{nearest(name, known) or '; it takes none'}"
    if first["type"] == "missing":
        return f"{owner} needs the parameter '{name}', which has no default"
    return f"{owner}: " + sentence(first, f"parameter '{name}'")


def _identity(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _settings_model(function: Callable[..., Any], owner: str) -> type[BaseModel]:
    """A pydantic model of the keyword-only parameters, unknown keys forbidden."""
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        if name == "kind":
            raise UserError(f"{owner} cannot take a parameter called 'kind'; that key names the function itself")
        empty = inspect.Parameter.empty
        annotation = Any if parameter.annotation is empty else parameter.annotation
        fields[name] = (annotation, ... if parameter.default is empty else parameter.default)
    config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=(), arbitrary_types_allowed=True)

    def number(cls: type[BaseModel], value: Any, info: ValidationInfo) -> Any:
        return no_truth_for_a_number(cls.model_fields[str(info.field_name)].annotation, value)

    checks: dict[str, Any] = {"number": field_validator("*", mode="before", check_fields=False)(number)}
    return create_model("Settings", __config__=config, __validators__=checks, **fields)


# The axes of "the one equation" (methods.md). Every function takes a TokenTable first (selections and aggregations also
# the mask) and returns one value a row. Divergences are called by what they need (`parts.Parts.data`), and return `[n]`:
#   log-probs of student and teacher   `[n, V]` where they need `distribution`, those of the sampled tokens, `[n]`, otherwise
#   then the reference's `[n, V]`      where they need `reference-distribution`
#   then the sampled ids `[n]`         where they need `ids`
#   then their episodes' rewards `[n]` where they need `rewards`
# One that needs none of the teacher's is called with the log-probs of the student's sampled tokens, `[n]`, alone.
SIGNALS: Registry[FloatArray] = Registry(
    "signal", *(f"agentdistill.signals.{name}" for name in ("opd", "gopd", "iwopd", "lightning"))
)
BASELINES: Registry[FloatArray] = Registry("baseline", "agentdistill.signals.vopd")
SELECTIONS: Registry[BoolArray] = Registry("selection", "agentdistill.signals.selection", "agentdistill.signals.tip")
STEP_WEIGHTS: Registry[FloatArray] = Registry("step_weight", "agentdistill.curricula")
GATES: Registry[FloatArray] = Registry("gate", *(f"agentdistill.signals.{name}" for name in ("gate", "kdrl", "gated", "dckd")))
RL_TERMS: Registry[FloatArray] = Registry("rl", "agentdistill.signals.grpo")
RATIOS: Registry[FloatArray] = Registry("ratio", "agentdistill.signals.ratio", "agentdistill.signals.trrd")
DIVERGENCES: Registry[Any] = Registry(
    "divergence",
    *(
        f"agentdistill.signals.{name}"
        for name in ("divergence", "estimators", "opsd", "logit_std", "eakl", "bdkd", "pld", "sinkd", "adpa", "sft", "dckd")
    ),
)
IMPORTANCE: Registry[FloatArray] = Registry("importance", "agentdistill.signals.importance")
AGGREGATIONS: Registry[FloatArray] = Registry("aggregation", "agentdistill.signals.aggregate")

# A coefficient takes the iteration, from 1, and gives a factor.
COEFFICIENTS: Registry[float] = Registry("coefficient", "agentdistill.signals.coefficients")
