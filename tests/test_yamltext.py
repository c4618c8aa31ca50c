"""YAML as experiments use it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentdistill import yamltext
from agentdistill.errors import UserError

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=8)
)
DATA = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=12,
)


@given(DATA)
def test_what_is_written_reads_back_as_it_was(data: Any) -> None:
    back = yamltext.read(yamltext.dump(data))
    assert back == data
    assert repr(back) == repr(data)  # 1 is not true, and 1.0 not 1


@pytest.mark.parametrize("text", ["1e-6", "+1E5", "1.5e3", ".5e1", "2.e2", "2024-01-01", "on", "0x1f", "1_000", "~", "<<", "="])
def test_text_that_looks_like_another_kind_stays_text(text: str) -> None:
    assert yamltext.read(yamltext.dump({"key": text, text: [text]})) == {"key": text, text: [text]}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: 2\na: 3", "is not usable: 'a' stands twice in one mapping, at lines 1 and 3"),
        ("a: {b: 1, 'b': 2}", "'b' stands twice in one mapping, at lines 1 and 1"),
        ("a: &x {b: [*x]}", "is not usable: the anchor at line 1 contains itself"),
        ("a: !thing 3", "is not usable: the tag !thing at line 1 is not plain data"),
        ("a: [", "is not valid YAML: "),
        ("a: 1\n---\nb: 2", "is not valid YAML: "),
    ],
)
def test_what_is_wrong_is_one_sentence_with_the_line(text: str, says: str) -> None:
    with pytest.raises(UserError) as error:
        yamltext.read(text)
    assert str(error.value).startswith("is not ")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_nothing_is_none() -> None:
    assert yamltext.read("") is None
    assert yamltext.read("# only a comment") is None


@pytest.mark.parametrize("word", ["010", "1:30", "NO", "off", "y", "0x10", "0b1", "1_000", "2020-01-01", "=", "1:30:00.5"])
def test_what_only_yaml_1_1_reads_as_a_number_or_truth_is_text(word: str) -> None:
    assert yamltext.read(f"a: {word}") == {"a": word}


@pytest.mark.parametrize(
    ("word", "value"),
    [("0", 0), ("-3", -3), ("+12", 12), ("1.5", 1.5), ("1.", 1.0), (".5", 0.5), ("1e-6", 1e-6), ("2.E3", 2000.0),
     (".inf", math.inf), ("true", True), ("False", False), ("~", None), ("null", None)],
)  # fmt: skip
def test_plain_numbers_and_truth_values_are_such(word: str, value: object) -> None:
    found = yamltext.read(f"a: {word}")["a"]
    assert found == value
    assert type(found) is type(value)
