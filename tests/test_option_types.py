from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import pytest

import agentdistill as ad
from agentdistill.errors import UserError
from agentdistill.option_types import misfit
from tests.needs import needs_environment


class Many:
    def __init__(
        self, turns: int = 3, listed: bool = False, share: float = 0.5, name: str | None = "x", kind: Literal["a", "b"] = "a",
        tasks: Sequence[str | int] | str = (), about: Mapping[str, Any] | str = "", pair: tuple[int, int] = (0, 1),
        rows: str | PathLike[str] | Sequence[dict[str, Any]] = (), bare=None, odd: int = None,  # noqa: RUF013
        own: Path | None = None, **rest: int,
    ) -> None:  # fmt: skip
        """Takes anything."""


@pytest.mark.parametrize(
    "options",
    [
        {"turns": 5}, {"listed": True}, {"share": 1}, {"name": None}, {"name": Path("y")}, {"kind": "b"}, {"tasks": ["a", 1]},
        {"tasks": "a"}, {"tasks": {"a"}}, {"about": {}}, {"pair": [1, 2]}, {"bare": object()}, {"odd": None}, {"own": "p"},
        {"rows": "p"}, {"rows": Path("p")}, {"rows": [{}]},
        {"other": "z"},
    ],
)  # fmt: skip
def test_options_of_the_annotated_types_fit(options):
    assert misfit(Many, options) == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"turns": "ten"}, "'turns' is 'ten' but must be a whole number"),
        ({"turns": True}, "'turns' is True but must be a whole number"),
        ({"turns": 1.5}, "'turns' is 1.5 but must be a whole number"),
        ({"listed": "false"}, "'listed' is 'false' but must be true or false"),
        ({"listed": 0}, "'listed' is 0 but must be true or false"),
        ({"share": "half"}, "'share' is 'half' but must be a number"),
        ({"name": 5}, "'name' is 5 but must be text or null"),
        ({"kind": "c"}, "'kind' is 'c' but must be 'a' or 'b'"),
        ({"tasks": [1.5]}, "'tasks' is [1.5] but must be a list of text or a whole number or text"),
        ({"about": ["a"]}, "'about' is ['a'] but must be a mapping or text"),
        ({"pair": 1}, "'pair' is 1 but must be a list"),
        ({"rows": 1.5}, "'rows' is 1.5 but must be text or a path or a list of a mapping"),
        ({"about": PurePosixPath("p")}, "'about' is PurePosixPath('p') but must be a mapping or text"),
    ],
)
def test_an_option_of_another_type_is_told_with_what_it_must_be(options, said):
    assert misfit(Many, options) == said


def test_annotations_that_cannot_be_read_refuse_nothing():
    def creator(turns: "Missing" = 1) -> None:  # type: ignore[name-defined]  # noqa: F821
        """Nothing."""

    assert misfit(creator, {"turns": "ten"}) == ""


@pytest.mark.parametrize("name", ["ALFWorld", "WebShop", "ScienceWorld", "TextWorld", "TextWorldExpress"])
def test_every_world_refuses_a_turn_limit_in_words_by_name(name):
    needs_environment(f"agentdistill/{name}-v0")
    with pytest.raises(UserError, match=rf"/{name}-v0' did not accept an option: 'max_turns' is 'ten' but must be"):
        ad.make(f"agentdistill/{name}-v0", max_turns="ten")


def test_the_word_false_does_not_turn_an_option_on():
    needs_environment("agentdistill/WebShop-v0")
    with pytest.raises(UserError, match="'admissible' is 'false' but must be true or false"):
        ad.make("agentdistill/WebShop-v0", admissible="false")
