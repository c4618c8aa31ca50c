from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, BaseModel, Field

from agentdistill.deadline import TookTooLong
from agentdistill.errors import UserError
from agentdistill.tool import Tool, ToolError, ToolFault, as_tool, tool, tools_prompt, truncate_middle


@tool
def convert(amount: float, unit: Literal["km", "mile"] = "km") -> float:
    """Convert an amount into metres.

    Args:
        amount: how much,
            as a number.
        unit: what it is in.

    Returns:
        metres.
    """
    return amount * {"km": 1000.0, "mile": 1609.344}[unit]


def test_signature_and_docstring_become_the_schema():
    assert convert.schema == {
        "type": "function",
        "function": {
            "name": "convert",
            "description": "Convert an amount into metres.",
            "parameters": {
                "type": "object",
                "properties": {
                    "amount": {"type": "number", "description": "how much, as a number."},
                    "unit": {
                        "type": "string",
                        "enum": ["km", "mile"],
                        "default": "km",
                        "description": "what it is in.",
                    },
                },
                "required": ["amount"],
            },
        },
    }


def test_annotated_descriptions_and_constraints_reach_schema_and_validation():
    @tool
    def pick(model_config: Annotated[int, Field(description="which", ge=0)]) -> int:
        """Pick."""
        return model_config

    assert pick.parameters["properties"]["model_config"] == {"description": "which", "minimum": 0, "type": "integer"}
    assert pick.call({"model_config": 4}).result == "4"
    assert not pick.call({"model_config": -1}).ok


def test_a_decorated_function_is_still_callable():
    assert convert(2.0) == 2000.0


def test_a_call_validates_converts_and_uses_defaults():
    call = convert.call({"amount": "2"})
    assert (call.name, call.arguments, call.result, call.ok) == ("convert", {"amount": "2"}, "2000.0", True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "argument 'amount' of convert is missing"),
        ({"amount": 1, "unti": "km"}, "'unti' is not an argument of convert; did you mean 'unit'?"),
        ({"amount": "much"}, "argument 'amount' of convert: Input should be a valid number"),
        ({"amount": 1, "unit": "parsec"}, "argument 'unit' of convert"),
        (["amount"], "Input should be a valid dictionary"),
    ],
)
def test_wrong_arguments_become_an_observation_that_names_them(arguments: Any, said: str):
    call = convert.call(arguments)
    assert not call.ok
    assert call.result.startswith("Error: ")
    assert said in call.result


def _raise(error: BaseException) -> Tool:
    @tool
    def failing() -> None:
        """Fail."""
        raise error

    return failing


class _UnsayableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


class _Text(str):
    def __str__(self) -> str:
        return self

    def __contains__(self, item: object) -> bool:
        raise RuntimeError("no")


class _LeavingError(Exception):
    def __str__(self) -> str:
        raise SystemExit


class _UnsayableToolError(ToolError):
    def __str__(self) -> str:
        raise GeneratorExit


class _UnlabelledError(ToolError):
    @property
    def label(self) -> str:  # type: ignore[override]
        raise ValueError


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("bad"), "Error: ValueError: bad"),
        (ToolError("only this"), "Error: only this"),
        (SystemExit(3), "Error: SystemExit: 3"),
        (RecursionError(), "Error: RecursionError"),
        (_UnsayableError(), "Error: _UnsayableError"),
        (_LeavingError(), "Error: _LeavingError"),
        (_UnsayableToolError(), "Error: _UnsayableToolError"),
        (_UnlabelledError("x"), "Error: the tool raised an exception that cannot be shown"),
        (ValueError(_Text("bad")), "Error: ValueError: bad"),
        (asyncio.CancelledError("x"), "Error: CancelledError: x"),
        (GeneratorExit(), "Error: GeneratorExit"),
        (BaseExceptionGroup("g", [KeyboardInterrupt()]), "Error: BaseExceptionGroup: g (1 sub-exception)"),
        (TookTooLong(), "Error: TookTooLong"),
    ],
)
@pytest.mark.parametrize("timeout", [10.0, None])
def test_a_tool_that_raises_anything_gives_an_observation(error: BaseException, said: str, timeout: float | None):
    call = replace(_raise(error), timeout=timeout).call({})
    assert (call.result, call.ok) == (said, False)


def test_a_keyboard_interrupt_that_no_user_sent_is_an_observation():
    assert _raise(KeyboardInterrupt()).call({}).result == "Error: KeyboardInterrupt"


def test_ctrl_c_is_not_swallowed():
    with pytest.raises(KeyboardInterrupt):
        replace(_raise(KeyboardInterrupt()), timeout=None).call({})

    @tool
    def wait() -> None:
        """Have the user press Ctrl-C."""
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)

    with pytest.raises(KeyboardInterrupt):
        wait.call({})


def test_a_fault_of_the_tool_itself_ends_the_episode():
    for timeout in (10.0, None):
        with pytest.raises(ToolFault, match="no sandbox"):
            replace(_raise(ToolFault("no sandbox")), timeout=timeout).call({})


def test_an_error_of_validation_inside_the_function_is_not_one_of_the_arguments():
    @tool
    def strict(x: str) -> int:
        """Read a point."""
        return _Point(x=x).x  # type: ignore[arg-type]

    assert strict.call({"x": "much"}).result.startswith("Error: ValidationError: 1 validation error for _Point")


def _hang(value: int) -> int:
    while value == 1:
        time.sleep(0.01)
    raise asyncio.CancelledError


def test_validation_that_hangs_or_raises_is_an_observation():
    @tool(timeout=0.1)
    def picky(x: Annotated[int, AfterValidator(_hang)]) -> int:
        """Be picky."""
        return x

    assert "took longer than 0.1 s" in picky.call({"x": 1}).result
    assert picky.call({"x": 2}).result == "Error: CancelledError"


def test_what_the_model_sent_is_recorded_whatever_the_function_does_to_it():
    @tool
    def spoil(items: Any, more: dict[str, Any]) -> str:
        """Change the arguments."""
        items[0].append(99)
        more.clear()
        return "ok"

    assert spoil.call({"items": [[1]]}, ()).arguments == {"items": [[1]]}
    call = spoil.call({"more": {"a": 1}}, ([[1]],))
    assert (call.arguments, call.result) == ({"items": [[1]], "more": {"a": 1}}, "ok")


def test_a_huge_result_is_cut_in_the_middle_to_the_configured_length():
    @tool(name="shout", max_chars=100)
    def loud() -> str:
        """Say a lot."""
        return "a" * 5_000_000 + "z" * 20

    call = loud.call({})
    assert call.ok
    assert len(call.result) == 100
    assert call.result.startswith("aaaa")
    assert call.result.endswith("zzz")
    assert "5000020 characters" in call.result
    assert loud.name == "shout"


@pytest.mark.parametrize("limit", [0, 1, 30, 60, 99, 100])
def test_truncation_never_exceeds_its_limit(limit: int):
    assert len(truncate_middle("x" * 100, limit)) == limit


class _Point(BaseModel):
    x: int


@pytest.mark.parametrize("make", [itertools.count, lambda: [itertools.repeat(0)], lambda: [[0] * 10_000] * 10_000])
def test_a_result_without_an_end_is_a_short_observation(make: Callable[[], Any]):
    @tool
    def give() -> Any:
        """Give."""
        return make()

    call = give.call({})
    assert call.ok
    assert len(call.result) <= give.max_chars


def test_nested_models_are_validated_and_handed_over_as_models():
    @tool
    def across(point: _Point) -> int:
        """Read a point."""
        return point.x

    assert across.call({"point": {"x": 3}}).result == "3"


def _no_doc(a: int) -> int:
    return a


def _no_type(a) -> int:  # type: ignore[no-untyped-def]
    """Doc."""
    return a


def _star(*a: int) -> int:
    """Doc."""
    return a[0]


def _odd(a: type[Any] | _UnsayableError) -> int:
    """Doc."""
    return 0


async def _later(a: int) -> int:
    """Doc."""
    return a


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (_no_doc, "no docstring"),
        (_no_type, "argument 'a' of tool '_no_type' has no type"),
        (_star, "cannot be passed by name"),
        (_odd, "no JSON schema"),
        (_later, "async"),
        (lambda: 0, "cannot name a tool"),
    ],
)
def test_functions_a_model_could_not_call_are_refused_with_the_reason(function: Any, said: str):
    with pytest.raises(UserError, match=said):
        as_tool(function)


def test_as_tool_keeps_a_tool():
    assert as_tool(convert) is convert


def test_the_tools_prompt_lists_every_schema_as_json_and_shows_the_format():
    prompt = tools_prompt([convert])
    listed = prompt.partition("<tools>\n")[2].partition("\n</tools>")[0]
    assert json.loads(listed) == convert.schema
    assert "<tool_call>" in prompt
    assert tools_prompt([]) == ""


@pytest.mark.parametrize("wait", [0.01, None], ids=["sleeping", "busy"])
def test_a_tool_that_hangs_costs_one_observation(wait: float | None):
    @tool(timeout=0.1)
    def hang() -> str:
        """Never come back."""
        while True:
            if wait is not None:
                time.sleep(wait)

    for _ in range(2):
        call = hang.call({})
        assert (call.result, call.ok) == ("Error: hang took longer than 0.1 s and was stopped", False)


def test_a_result_that_takes_too_long_to_write_is_a_hang_too():
    class Slow:
        def __str__(self) -> str:
            for _ in range(1_000):
                time.sleep(0.01)
            return "late"

    @tool(timeout=0.1)
    def slow() -> object:
        """Return something slow."""
        return Slow()

    assert "took longer than 0.1 s" in slow.call({}).result


def test_a_tool_without_a_timeout_runs_in_the_callers_thread():
    @tool(timeout=None)
    def here() -> bool:
        """Say whether this is the caller's thread."""
        return threading.current_thread() is caller

    caller = threading.current_thread()
    assert here.call({}).result == "True"
    assert tool(here.function).call({}).result == "False"


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 1e300])
def test_a_timeout_that_is_none_is_refused(seconds: float):
    with pytest.raises(UserError, match="give seconds above 0, or None"):
        tool(timeout=seconds)(convert.function)


def test_results_are_cleaned_of_what_a_terminal_would_obey():
    @tool
    def noisy() -> str:
        """Be noisy."""
        return "\x1b[31mred\x1b[0m\0 \ud800 <|im_end|>"

    assert noisy.call({}).result == "red ? <|im_end|>"


def test_arguments_without_a_name_go_to_the_parameters_in_order():
    assert convert.call({}, (2, "km")).result == convert.call({"amount": 2, "unit": "km"}).result
    assert convert.call({"unit": "km"}, ("2",)).arguments == {"amount": "2", "unit": "km"}
    assert "at most" in convert.call({}, (1, "km", 3, 4, 5, 6)).result
    assert "'amount' of convert is given twice" in convert.call({"amount": 1}, (2,)).result
