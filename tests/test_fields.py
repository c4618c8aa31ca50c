"""The table of an experiment's fields."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from agentdistill.config import parse_experiment
from agentdistill.fields import rows, table


class Inner(BaseModel):
    share: Annotated[float, Field(gt=0, le=1)] = Field(0.5, description="a share")
    pair: tuple[int, int] = Field((1, 2), description="a pair")


class Outer(BaseModel):
    word: str = Field(description="a word")
    kind: Literal["a", "b"] | None = Field(None, description="a kind")
    flag: bool = True
    first: Inner
    second: Inner | None = Field(None, description="as the first")


def test_rows_give_name_type_default_and_meaning() -> None:
    found = [(row.name, row.kind, row.default, row.meaning) for row in rows(Outer)]
    assert found == [
        ("word", "text", "", "a word"),
        ("kind", "a | b or null", "null", "a kind"),
        ("flag", "true/false", "true", ""),
        ("first.share", "number > 0, ≤ 1", "0.5", "a share"),
        ("first.pair", "2 × whole number", "[1, 2]", "a pair"),
        ("second", "as first", "null", "as the first"),
    ]


def test_every_field_of_an_experiment_stands_in_the_table_once() -> None:
    def names(value: object, at: str = "") -> list[str]:
        if not isinstance(value, dict) or at in ("env.options", "engine.options", "teachers"):
            return [at]
        return [n for key, item in value.items() for n in names(item, f"{at}.{key}".lstrip("."))]

    others = {"teacher": {"model": "initial"}, "reference": {"model": "m"}, "mixed": {"most": 1}, "rollouts": {"store": "s"}}
    raw = {"env": "lab/X-v0", "student": {"model": "m", "sft": {}, "lora": {}}, **others}
    assert sorted(row.name for row in rows()) == sorted(names(parse_experiment(raw).model_dump()))
    lines = table().splitlines()
    for row in rows():
        assert sum(line.startswith(f"  --{row.name}  ") for line in lines) == 1


def test_the_table_is_no_wider_than_it_may_be() -> None:
    for width in (80, 100):
        assert max(map(len, table(width).splitlines())) <= width
