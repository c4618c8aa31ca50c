"""Values of every kind as text. Nothing here is timed: what is not bounded would not come back, or not fit into memory."""

from __future__ import annotations

import collections
import datetime
import enum
import fractions
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, PlainSerializer, RootModel, computed_field

from agentdistill.rendering import LONGEST, as_text, is_ctrl_c, said


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


@dataclass
class Pair:
    left: Any
    right: Any = None


class Model(BaseModel):
    x: Any = None
    named: int = Field(1, serialization_alias="Name")
    hidden: int = Field(2, exclude=True)
    rounded: Annotated[float, PlainSerializer(round)] = 2.4

    @computed_field  # type: ignore[prop-decorator]
    @property
    def twice(self) -> int:
        return 2 * self.named


class Words(RootModel[list[str]]):
    pass


class Liar(list[Any]):
    def __iter__(self) -> Iterator[Any]:
        return itertools.count()

    def __len__(self) -> int:
        return 10**18

    def __repr__(self) -> str:
        raise RuntimeError("no")


class Text(str):
    def __str__(self) -> str:
        raise RuntimeError("no")

    def __getitem__(self, index: Any) -> str:
        raise RuntimeError("no")


class Plain:
    pass


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        (True, "True"),
        (3, "3"),
        (0.1, "0.1"),
        (float("nan"), "nan"),
        (1 + 2j, "(1+2j)"),
        ("a\n", "a\n"),
        (Text("a"), "a"),
        (b"a\xff", "a\\xff"),
        (np.int64(3), "3"),
        (np.float64(2.5), "2.5"),
        (np.arange(3), "[0 1 2]"),
        (fractions.Fraction(1, 2), "1/2"),
        (Level.HIGH, "3"),
        (Colour.RED, "red"),
        (ValueError("bad"), "bad"),
        (object, "<class 'object'>"),
        (itertools.count(), "count(0)"),
        (map(str, [1]), "<map object>"),
        (datetime.datetime(2024, 1, 2), "2024-01-02T00:00:00"),
        ([1, "é\n", None, True, float("inf")], '[1,"é\\n",null,true,Infinity]'),
        ([np.int64(3), Level.HIGH, Colour.RED, Text("a"), b"b"], '[3,3,"red","a","b"]'),
        ([], "[]"),
        ({}, "{}"),
        ((1, (2,)), "[1,[2]]"),
        ({1}, "[1]"),
        (collections.deque([1]), "[1]"),
        (Liar([1]), "[1]"),
        ((n for n in range(3)), "[0,1,2]"),
        ({"a": {1: 2}, (1, 2): object, None: 0}, '{"a":{"1":2},"[1,2]":"<class \'object\'>","None":0}'),
        (collections.Counter("aab"), '{"a":2,"b":1}'),
        (Pair(1, Pair("x")), '{"left":1,"right":{"left":"x","right":null}}'),
        (Model(x=[Model()]), '{"x":[{"x":null,"Name":1,"rounded":2,"twice":2}],"Name":1,"rounded":2,"twice":2}'),
        (Words(["a"]), '["a"]'),
        ({"a": Words(["a"])}, '{"a":["a"]}'),
        (10**4_000, str(10**4_000)),
        (10**5_000, "<integer of about 5001 digits>"),
        ([-(1 << 10_000_000)], "[<integer of about 3010301 digits>]"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_become_text(value: Any, text: str):
    assert as_text(value) == text


def test_what_a_process_would_call_otherwise_is_left_out():
    assert as_text(Plain()) == "<tests.test_rendering.Plain object>"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.lists(JSON))
def test_json_is_written_as_json(value: list[Any]):
    assert as_text(value) == json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def ring() -> list[Any]:
    found: list[Any] = []
    found += [1, found, {"a": found}]
    return found


def bomb(kind: type) -> Any:
    """A value whose parts are few, and of which 2^60 would be written."""
    found: Any = ()
    for _ in range(60):
        found = kind([found, found]) if kind in (list, tuple) else kind(left=found, right=found)
    return found


def nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


def endless() -> Iterator[dict[str, int]]:
    for count in itertools.count():
        yield {"n": count}


class Chatty:
    def __str__(self) -> str:
        return "x" * 10_000_000


UNBOUNDED: dict[str, Callable[[], Any]] = {
    "ring": ring,
    "bomb of lists": lambda: bomb(list),
    "bomb of tuples": lambda: bomb(tuple),
    "bomb of dataclasses": lambda: bomb(Pair),
    "bomb in a model": lambda: Model(x=bomb(list)),
    "ring in a model": lambda: Model(x=ring()),
    "a million models": lambda: Model(x=[Model(x=bomb(tuple))] * 1_000_000),
    "deep": lambda: nested(100_000),
    "deep in a dict": lambda: {"a": nested(100_000)},
    "endless": endless,
    "endless in a list": lambda: [endless(), endless()],
    "long": lambda: list(range(1_000_000)),
    "long dict": lambda: dict.fromkeys(range(1_000_000), "x" * 10),
    "long texts": lambda: ["x" * 10_000_000] * 100,
    "long key": lambda: {"x" * 10_000_000: 1},
    "long tuple as key": lambda: {tuple(range(1_000_000)): 1},
    "liars": lambda: Liar([Liar([1])] * 1_000_000),
    "bytes": lambda: bytearray(10_000_000),
    "bytes in a list": lambda: [b"\0" * 10_000_000],
    "chatty": Chatty,
    "chatty in a list": lambda: [Chatty()] * 1_000,
    "empty lists": lambda: [[]] * 1_000_000,
    "controls": lambda: ["\0" * 10_000_000],
}


@pytest.mark.parametrize("name", UNBOUNDED)
def test_the_text_of_any_value_is_bounded_and_says_that_something_is_missing(name: str):
    text = as_text(UNBOUNDED[name]())
    assert text.count("…") > 0
    assert len(text) < 7 * LONGEST  # of JSON's six characters for a control character
    assert len(as_text(UNBOUNDED[name](), 100)) < 7 * 100 + 500


class Exiting(Exception):
    def __str__(self) -> str:
        raise SystemExit


class Interrupting(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


def test_the_message_of_an_exception_is_empty_where_it_cannot_say_it():
    assert said(ValueError("bad")) == "bad"
    assert said(ValueError()) == said(Exiting()) == ""
    with pytest.raises(KeyboardInterrupt):  # it may be the user's
        said(Interrupting())


def test_ctrl_c_is_what_reaches_the_main_thread():
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.extend([is_ctrl_c(KeyboardInterrupt()), said(Interrupting())]))
    thread.start()
    thread.join()
    assert seen == [False, ""]
    assert is_ctrl_c(KeyboardInterrupt())
    assert not is_ctrl_c(SystemExit())
