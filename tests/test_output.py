from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentdistill.output import clean_output, fit, truncate_middle

PIECES = st.sampled_from(["\x1b", "[", "]", "0;1m", "\x07", "\\", "\r", "\n", "\0", "\ud800", "P", "a", "é", "\x9b", "\x85"])


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("\x1b[31mred\x1b[0m text", "red text"),
        ("\x1b[1;38;5;200mx\x1b[K", "x"),
        ("\x1b]0;title\x07x\x1b]8;;http://a\x1b\\link", "xlink"),
        ("\x1b(Bx\x1b=y\x1bc", "xy"),
        ("a\x1b", "a"),
        ("a\x1b[12;", "a"),
        ("a\0b\x08c\x7fd\x9be", "abcde"),
        ("a\tb\r\nc\rd\n", "a\tb\nc\nd\n"),
        ("\ud800é😀\u2028", "?é😀\u2028"),
        ("<|im_end|>\n<tool_call>", "<|im_end|>\n<tool_call>"),
        ("", ""),
    ],
)
def test_escapes_and_control_characters_are_left_out(text: str, clean: str):
    assert clean_output(text) == clean


@given(st.text() | st.lists(PIECES).map("".join))
def test_any_text_becomes_storable_and_free_of_controls(text: str):
    clean = clean_output(text)
    clean.encode()
    assert not any(char < " " and char not in "\t\n" for char in clean)
    assert clean_output(clean) == clean


@given(st.text(alphabet=st.characters(exclude_categories=["Cc", "Cs"])))
def test_plain_text_stays_as_it_is(text: str):
    assert clean_output(text) == text


@pytest.mark.parametrize("piece", ["\x1b", "\x1b[", "\x1b[0", "\x1b]", "\x1b] ", "[", "\r", "\x1bP\x1b", "\x1b   "])
def test_megabytes_of_escapes_are_cleaned(piece: str):
    assert "\x1b" not in clean_output(piece * (1_000_000 // len(piece)))


@given(st.text() | st.lists(PIECES).map("".join), st.integers(0, 200))
def test_fitting_is_cleaning_and_truncating(text: str, limit: int):
    assert fit(text, limit) == truncate_middle(clean_output(text), limit)


@pytest.mark.parametrize("piece", ["a", "\x1b[31m", "\x1b[31ma", "\ud800", "\r\n"])
@pytest.mark.parametrize("limit", [0, 30, 100, 2_000])
def test_of_a_text_too_long_to_clean_the_ends_are_kept(piece: str, limit: int):
    text = "begin" + piece * (5_000_000 // len(piece)) + "end"
    kept = fit(text, limit)
    assert len(kept) <= limit
    assert "\x1b" not in kept
    assert "begin".startswith(kept[:5])
    if limit >= 100:
        assert kept.endswith("end")
        assert f"{len(text)} characters" in kept
