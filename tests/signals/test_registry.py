from typing import Annotated, Literal

import pytest
from pydantic import Field

from agentdistill.errors import UserError
from agentdistill.signals import AGGREGATIONS, DIVERGENCES, SIGNALS, STEP_WEIGHTS, Registry


@pytest.fixture
def shapes() -> Registry[float]:
    registry: Registry[float] = Registry("shape")

    @registry.register("box", needs={"teacher"})
    def box(
        height: float,
        *,
        width: float = 2.0,
        times: int = 1,
        mode: Literal["a", "b"] = "a",
        share: Annotated[float, Field(le=1)] = 0.5,
    ) -> float:
        return height * width * times

    return registry


def test_choice_calls_the_function_under_its_settings(shapes):
    choice = shapes.resolve({"kind": "box", "times": 3})
    assert choice(5.0) == 30.0
    assert choice.name == "box"
    assert choice.params == {"width": 2.0, "times": 3, "mode": "a", "share": 0.5}
    assert choice.needs == {"teacher"}


def test_spec_of_a_choice_resolves_to_the_same_choice(shapes):
    choice = shapes.resolve({"kind": "box", "width": 7})
    assert shapes.resolve(choice.spec) == choice
    assert shapes.resolve(choice) is choice
    assert SIGNALS.resolve("none").spec == "none"


def test_settings_are_coerced_to_their_annotations(shapes):
    params = shapes.resolve({"kind": "box", "width": "1e-3", "times": "4"}).params
    assert params["width"] == 1e-3
    assert isinstance(params["times"], int)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("bix", "unknown shape 'bix'; did you mean 'box'?"),
        ({"kind": "box", "widht": 1}, "shape 'box' has no parameter 'widht'; did you mean 'width'?"),
        (
            {"kind": "box", "width": "wide"},
            "shape 'box': parameter 'width' must be a number, not 'wide'",
        ),
        ({"kind": "box", "times": 1.5}, "shape 'box': parameter 'times' must be a whole number, not 1.5"),
        ({"kind": "box", "mode": "c"}, "shape 'box': parameter 'mode' must be 'a' or 'b', not 'c'"),
        (
            {"kind": "box", "share": 2},
            "shape 'box': parameter 'share' must be at most 1, not 2",
        ),
        ({"kind": "box", "width": float("nan")}, "shape 'box': parameter 'width' must be a finite number, not nan"),
        ({"kind": "box", "height": 1}, "shape 'box' has no parameter 'height'"),
        ({"width": 2}, "shape must be a name or a mapping with 'kind'"),
        (None, "shape must be a name or a mapping with 'kind', not None"),
    ],
)
def test_bad_specifications_are_refused_in_one_sentence(shapes, spec, message):
    with pytest.raises(UserError) as caught:
        shapes.resolve(spec)
    assert str(caught.value).startswith(message)


def test_parameter_without_default_is_asked_for():
    with pytest.raises(UserError, match="'seq-mean-token-sum-norm' needs the parameter 'norm'"):
        AGGREGATIONS.resolve("seq-mean-token-sum-norm")


def test_taken_name_is_refused_but_the_same_definition_may_run_twice(shapes):
    def other(height: float) -> float:
        return height

    with pytest.raises(UserError, match="'box' is already registered"):
        shapes.register("box")(other)
    shapes.register("other")(other)
    shapes.register("other")(other)
    assert shapes.names() == ["box", "other"]


def test_unknown_capability_is_refused_at_registration(shapes):
    with pytest.raises(UserError, match="unknown capability 'techer'; did you mean 'teacher'"):
        shapes.register("new", needs={"techer"})


def test_settings_that_do_not_fit_together_are_refused_when_they_are_resolved(shapes):
    def fits(*, inner: float, outer: float) -> None:
        if inner > outer:
            raise ValueError(f"inner {inner} is larger than outer {outer}")

    @shapes.register("ring", check=fits)
    def ring(scale: float, *, inner: float = 1.0, outer: float = 2.0) -> float:
        return scale * (outer**2 - inner**2)

    assert shapes.resolve("ring")(2.0) == 6
    with pytest.raises(UserError) as caught:
        shapes.resolve({"kind": "ring", "inner": 5})
    assert str(caught.value) == "shape 'ring': inner 5.0 is larger than outer 2.0"


def test_classes_register_as_factories():
    from dataclasses import dataclass

    registry: Registry[object] = Registry("thing")

    @registry.register("thing")
    @dataclass(kw_only=True)
    class Thing:
        size: int = 1

    assert registry.resolve({"kind": "thing", "size": "3"})() == Thing(size=3)


def test_built_in_names_are_found_without_importing_their_modules_first():
    assert {"none", "sod", "decay-after-error"} <= set(STEP_WEIGHTS.names())
    assert {"none", "opd", "g-opd"} <= set(SIGNALS.names())
    assert {"rkl", "k2", "pld", "adpa"} <= set(DIVERGENCES.names())  # each of another module


def test_an_entry_that_measures_needs_distributions_under_the_settings_that_measure(shapes):
    def columns(*, exact: bool) -> dict[str, object]:
        return {"gap": lambda student, teacher: student[:, 0]} if exact else {}

    @shapes.register("disc", measures=columns)
    def disc(height: float, *, exact: bool = False) -> float:
        return height

    assert shapes.resolve("disc").needs == frozenset()
    exact = shapes.resolve({"kind": "disc", "exact": True})
    assert exact.needs == {"teacher", "distribution"}
    assert list(exact.measures) == ["gap"]
