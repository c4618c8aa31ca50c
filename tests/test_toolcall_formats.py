"""What every call format holds to. Each format's own forms are in a file of its own."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentdistill.errors import UserError
from agentdistill.toolcall import MAX_CALLS, Call, CallFormat, ParsedMessage, call_format, call_formats, register_format
from agentdistill.toolcall.base import _FORMATS
from agentdistill.toolcall.values import MAX_DEPTH
from tests.steps import lines_run

NAMES = ["hermes", "json", "react", "action"]
TAGS = [
    "<tool_call>", "</tool_call>", "<|python_tag|>", "<action>", "</action>", "Action:", "\nAction: f\nAction Input: {}\n",
    "\nObservation: x", "\nFinal Answer: 3", "Finish[4]", "<think>", "</think>", '{"name": "g", "parameters": {}}', "```json\n",
    "```", ";", "\\", '"', "'", "\n", "\r", "\u2028", "\x85", "\0", "é", "😀", "\\u003c", "\\ud800", ")", "](", "[", "{", "}",
]  # fmt: skip
TEXT = st.text() | st.lists(st.sampled_from(TAGS) | st.text(max_size=3), max_size=6).map("".join)
FARTHEST = [10**4_299, -(10**4_299), 1 << 63, 1.7976931348623157e308, -5e-324, -0.0]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
    | st.sampled_from(FARTHEST),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)
NAME = st.sampled_from(["f", "finish", "Finish", "final_answer", "None", "true", "class", "a.b", "a-b", "_", "Thought"])
KEY = st.sampled_from(["x", "name", "arguments", "class", "__debug__", "True", "ﬁ", "self", "input", "function", "a b"])


@pytest.mark.parametrize("form", NAMES)
@given(name=NAME | TEXT.filter(bool), arguments=st.dictionaries(KEY | TEXT, JSON, max_size=3))
@settings(max_examples=300, deadline=None)
def test_a_formatted_call_is_read_back(form: str, name: str, arguments: dict[str, Any]):
    spoken = call_format(form)
    message = spoken.parse(spoken.format_call(name, arguments))
    assert message == ParsedMessage([Call(name, arguments)])
    assert json.dumps(message.calls[0].arguments) == json.dumps(arguments)  # 1, 1.0 and True are equal in Python


@pytest.mark.parametrize("form", NAMES)
@given(st.lists(st.tuples(NAME, st.dictionaries(KEY, JSON, max_size=2)), min_size=1, max_size=MAX_CALLS))
@settings(max_examples=50, deadline=None)
def test_parallel_calls_are_read_back_in_order(form: str, pairs: list[tuple[str, dict[str, Any]]]):
    spoken = call_format(form)
    message = spoken.parse("I will look.\n" + "\n".join(spoken.format_call(*pair) for pair in pairs))
    assert message == ParsedMessage([Call(*pair) for pair in pairs], text="I will look.")


@pytest.mark.parametrize("form", NAMES)
def test_large_arguments_are_read_back(form: str):
    spoken = call_format(form)
    arguments = {"code": "print('a < b')\n" * 20_000, "n": list(range(1_000))}
    assert spoken.parse(spoken.format_call("f", arguments)).calls == [Call("f", arguments)]


@pytest.mark.parametrize("form", NAMES)
def test_arguments_nested_as_deep_as_allowed_are_read_back_and_deeper_ones_refused(form: str):
    spoken = call_format(form)
    value: Any = -1
    for _ in range(MAX_DEPTH - 1):
        value = [value]
    arguments = {"x": value, "y": {"z": value[0]}}
    assert spoken.parse(spoken.format_call("f", arguments)).calls == [Call("f", arguments)]
    for depth in (1, 100, *range(800, 1_000), 2_000):  # of which some can be read, but not be written again
        text = spoken.format_call("f", {"x": "here"}).replace('"here"', "[" * depth + str(value) + "]" * depth)
        message = spoken.parse(text)
        assert message.calls == []
        assert len(message.errors) == 1


@pytest.mark.parametrize("form", NAMES)
def test_calls_beyond_the_limit_are_one_error(form: str):
    spoken = call_format(form)
    message = spoken.parse("\n".join([spoken.format_call("f", {})] * (MAX_CALLS + 5)))
    assert len(message.calls) == MAX_CALLS
    assert message.errors == [f"only the first {MAX_CALLS} tool calls of a message are read"]


@pytest.mark.parametrize("form", NAMES)
def test_calls_inside_thinking_are_not_calls(form: str):
    spoken = call_format(form)
    message = spoken.parse(f"<think>\n{spoken.format_call('f', {})}\n</think>ok")
    assert message == ParsedMessage(text="ok")


@pytest.mark.parametrize("form", NAMES)
def test_text_without_a_call_is_text(form: str):
    text = r"It is {1, 2} or [3]; f(x) = x, so \boxed{\{1, 2\}}. Actions: none."
    assert call_format(form).parse(text) == ParsedMessage(text=text)


@pytest.mark.parametrize("form", NAMES)
def test_the_prompt_shows_every_schema_and_a_call_that_can_be_read(form: str):
    schemas = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("first", "second")]
    prompt = call_format(form).describe(schemas)
    listed = prompt.partition("<tools>\n")[2].partition("\n</tools>")[0]
    assert [json.loads(line) for line in listed.split("\n")] == schemas
    example = prompt.partition("To use one, write")[2].partition("result comes back")[0]
    (call,) = call_format(form).parse(example.partition("\nand stop")[0].partition("\nSeparate")[0]).calls
    assert call.arguments["argument"] == "value"


HOSTILE = [
    "<tool_call>", "</tool_call>", '<tool_call>{"a":"', "<tool_call>[", "{", "[", "[{", '{"name":', '[{"name": ', '{"name": "',
    '{"id": "', "<|python_tag|>", "<|python_tag|>{", "<action>", "</action>", "<action>f(", "<action>f[", "<action>-",
    "Action:", "Action:\n", "Action Input:\n", "Action: f\nAction Input: {\n", "Observation:\n", "Final Answer:", "Thought:\n",
    "```", "```json\n", "<think>", "</think>", "\\", '"', " ", "\n", "\t*", "action 1", "\n > *action", "\ud800", "a", "é",
    ";", "9",
]  # fmt: skip


@pytest.mark.parametrize("form", NAMES)
def test_a_megabyte_of_anything_takes_steps_in_proportion(form: str):
    # Counted and not timed. A pattern that backtracks makes no steps, but at this size it does not come back at all.
    for piece in HOSTILE:
        few, many = (_steps(form, piece * (size // len(piece))) for size in (62_500, 1_000_000))
        assert many < 20 * few + 10_000, piece


def _steps(form: str, text: str) -> int:
    """Lines of Python that a parse runs."""
    messages: list[ParsedMessage] = []
    count = lines_run(lambda: messages.append(call_format(form).parse(text)))
    assert len(messages[0].calls) + len(messages[0].errors) <= MAX_CALLS + 2
    return count


def test_a_hundred_thousand_random_and_mutated_messages_are_parsed():
    rng = random.Random(0)
    read = 0
    for count, text in enumerate(_messages(rng, 100_000)):
        for form in NAMES:
            spoken = call_format(form)
            message = spoken.parse(text)
            assert len(message.calls) <= MAX_CALLS, (count, text)
            for error in message.errors:
                error.encode()
                assert len(error) < 400, (count, text)
            for call in message.calls:
                assert call.name
                json.dumps([call.name, call.arguments, call.positional], allow_nan=False, ensure_ascii=False).encode()
            if message.calls and not message.calls[0].positional:
                read += 1
                call = message.calls[0]
                assert spoken.parse(spoken.format_call(call.name, call.arguments)).calls == [call], (count, text)
    assert read > 20_000


ALPHABET = string.printable + "é😀\ud800\u2028\0<>{}[]:\"'"
PIECES = [
    *TAGS,
    *HOSTILE,
    "NaN",
    "1e999",
    "null",
    "-",
    "f(x=1)",
    "f[x]",
    '"arguments": {}',
    "'name': 'f'",
    "True",
    '"function"',
]


FRAMES = [
    '<tool_call>{"name": "f", "arguments": {"x": VALUE}}</tool_call>',
    '<tool_call>{"name": "f", "arguments": VALUE}</tool_call>',
    '{"name": "f", "parameters": {"x": VALUE}}',
    "<action>f(x=VALUE)</action>",
    "<action>f(VALUE)</action>",
    '<action>{"name": "f", "arguments": {"x": VALUE}}</action>',
    "Action: f(x=VALUE)",
    "Action: f\nAction Input: VALUE",
    'Action: f\nAction Input: {"x": VALUE}',
]
NESTINGS = [
    "[]",
    "()",
    ('{"a":', "}"),
    ("f(", ")"),
    ("-", ""),
    ("not ", ""),
    ("lambda:", ""),
    ("1+", ""),
    ("", ".a"),
    ("", "[0]"),
]


def _messages(rng: random.Random, count: int) -> Iterator[str]:
    """Random characters, random pieces, odd values in calls of every format, and well-formed calls with random damage."""
    for index in range(count):
        if index % 5 == 0:
            yield "".join(rng.choices(ALPHABET, k=rng.randrange(60)))
        elif index % 5 == 1:
            yield "".join(rng.choices(PIECES, k=rng.randrange(12)))
        elif index % 5 == 2:
            text = rng.choice(FRAMES).replace("VALUE", _odd_value(rng))
            yield _damaged(text, rng) if index % 3 == 0 else text
        else:
            spoken = call_format(rng.choice(NAMES))
            calls = [spoken.format_call(rng.choice(["f", "a b"]), {"x": rng.choice([1, "a\n{", [{}]])}) for _ in range(2)]
            yield _damaged("\n".join(calls), rng)


def _odd_value(rng: random.Random) -> str:
    """A number, text or nesting in Python's or JSON's writing, now and then beyond what can be read or written again."""
    size = int(10 ** (rng.uniform(2.5, 4.3) if rng.random() < 0.2 else rng.uniform(0, 2)))
    match rng.randrange(3):
        case 0:
            number = rng.choice(["", "0x", "0X", "0b", "0o", "0", "1_", "."]) + rng.choice("0179f") * size
            return rng.choice(["", "", "-", "+", "--"]) + number + rng.choice(["", "", ".0", "e9", "e999", "E-999", "j", "L"])
        case 1:
            quote = rng.choice(['"', "'", '"""'])
            inside = rng.choice(
                ["a", "\\ud800", "\\udc00", "\\N{DIGIT ONE}", "\\x4", "\\U00110000", "\ud800", "\0", "{1}", "\n"]
            )
            return rng.choice(["", "", "b", "f", "r", "u"]) + quote + inside * min(size, 50) + quote
    before, after = rng.choice(NESTINGS)
    return before * size + rng.choice(["1", "-1", "", '"a"', "x"]) + after * size


def _damaged(text: str, rng: random.Random) -> str:
    for _ in range(rng.randrange(1, 5)):
        at, length = rng.randrange(len(text) + 1), rng.choice([0, 0, 1, 1, 5, 20])
        text = (
            text[:at] + rng.choice(["", rng.choice(ALPHABET), rng.choice(PIECES), text[at : at + 9] * 2]) + text[at + length :]
        )
    return text


def test_an_unknown_format_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="no call format 'hermse'; did you mean 'hermes'"):
        call_format("hermse")


def test_the_four_formats_are_there():
    assert set(NAMES) <= set(call_formats())


def test_others_can_register_a_format_but_not_under_a_name_that_is_taken():
    class Shout(CallFormat):
        name = "shout"

        def parse(self, text: str) -> ParsedMessage:
            return ParsedMessage([Call(line[1:], {}) for line in text.split("\n") if line.startswith("!")])

        def format_call(self, name: str, arguments: dict[str, Any]) -> str:
            return f"!{name}"

        def format_response(self, result: str) -> str:
            return result.upper()

        def describe(self, schemas: Any) -> str:
            return "Shout."

    register_format(Shout)
    try:
        assert call_format("shout").parse("!f").calls == [Call("f", {})]
        register_format(Shout)  # its module may be imported twice

        class Whisper(Shout):
            pass

        with pytest.raises(UserError, match="'shout' is registered twice, by Shout and Whisper"):
            register_format(Whisper)
    finally:
        del _FORMATS["shout"]

    class Nameless(Shout):
        name = ""

    with pytest.raises(UserError, match="Nameless has no name"):
        register_format(Nameless)
