"""Tools a model can call: plain typed Python functions with a JSON schema, whose calls always give an observation.

A tool that raises, takes too long, or returns something huge or unreadable, costs the model one observation and never ends
an episode.
"""

from __future__ import annotations

import functools
import inspect
import re
import threading
import typing
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, overload

import pydantic
from pydantic.json_schema import GenerateJsonSchema

from agentdistill.deadline import TookTooLong, TooManyStuck, call_within
from agentdistill.errors import UserError, nearest
from agentdistill.output import clean_output, fit, truncate_middle
from agentdistill.rendering import LONGEST, as_text, is_ctrl_c, said
from agentdistill.toolcall import DEFAULT_FORMAT, call_format
from agentdistill.trajectory import ToolCall

__all__ = [
    "MAX_CHARS",
    "TIMEOUT",
    "Tool",
    "ToolError",
    "ToolFault",
    "as_tool",
    "clean_output",
    "declared_tools",
    "tool",
    "tools_prompt",
    "truncate_middle",
]

MAX_CHARS = 2_000
TIMEOUT = 30.0
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_declared: weakref.WeakValueDictionary[str, Tool] = weakref.WeakValueDictionary()  # by name and place of definition
_SECTION = re.compile(r"(Args|Arguments|Parameters|Returns|Raises|Yields|Examples?|Notes?):\s*$")


class ToolError(Exception):
    """Raise it inside a tool to show the model the message alone, without the name of an exception.

    Attributes:
        label: goes before the message; a subclass whose messages say what they are may set it to nothing.
    """

    label = "Error: "


class ToolFault(Exception):
    """Raise it inside a tool when the tool itself has failed and the model has done nothing wrong: it ends the episode as
    an environment's error, which is never rewarded and never trained on."""


@dataclass(frozen=True, eq=False)
class Tool:
    """One tool; made by `tool`, and callable as the plain function it was made from.

    Attributes:
        name, description: what the model reads.
        parameters: JSON schema of the arguments object.
        function: the Python function.
        arguments_model: pydantic model that validates the arguments; its fields are aliased to their names.
        max_chars: results longer than this are cut in the middle.
        timeout: seconds a call may take, in a thread of its own (see `deadline` for what that can and cannot end). None:
            the caller's thread and no limit, for tools that bound themselves or keep what belongs to a thread.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    function: Callable[..., Any]
    arguments_model: type[pydantic.BaseModel]
    max_chars: int = MAX_CHARS
    timeout: float | None = TIMEOUT

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The plain function, which may raise."""
        return self.function(*args, **kwargs)

    @property
    def schema(self) -> dict[str, Any]:
        """The tool as an OpenAI function schema, the form chat templates take."""
        about = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": about}

    def call(self, arguments: dict[str, Any], positional: Sequence[Any] = ()) -> ToolCall:
        """Validate the arguments and run the function. Whatever goes wrong is told in the result.

        Args:
            arguments: by name.
            positional: without a name, for the parameters in their order.

        Raises:
            ToolFault: when the function does. Nothing else but Ctrl-C, which without a timeout cannot be told from a
                KeyboardInterrupt that the function raises in the main thread.
        """
        ok = False
        try:
            arguments = self._named(arguments, positional)
            # A copy, so that what is recorded is what the model wrote, whatever the function does to it.
            given = _copied(arguments)
            attempt = functools.partial(self._attempt, given)
            result, ok = attempt() if self.timeout is None else call_within(self.timeout, attempt)
        except ToolFault:
            raise
        except TookTooLong:
            result = f"Error: {self.name} took longer than {self.timeout:g} s and was stopped"
        except TooManyStuck as error:
            result = f"Error: {self.name} was not run, because {error}"
        except Exception as error:
            result = _told(error)
        return ToolCall(self.name, arguments, fit(result, self.max_chars), ok)

    def episode(self) -> Tool:
        """The tool for one episode: itself, unless a subclass keeps state (as `tools.python.PythonTool`)."""
        return self

    def metadata(self) -> dict[str, Any]:
        """What a run records of the tool, as JSON takes it."""
        return {}

    def close(self) -> None:
        """End what `episode` began; called at the episode's end, or when the environment is reset or closed."""

    def _attempt(self, arguments: dict[str, Any]) -> tuple[str, bool]:
        """What the function returns or raises as text, and whether it returned.

        The whole of it is the tool's work: a validator or `__str__` of its own may be as slow, and raise as much, as anything.
        Every exception is an observation, those too by which some library ends a task, a generator or the process.
        """
        try:
            result = self.function(**self._checked(arguments))
            return as_text(result, max(LONGEST, self.max_chars)), True
        except ToolFault:
            raise
        except BaseException as error:
            if is_ctrl_c(error):
                raise
            return _told(error), False

    def _checked(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments as the function takes them."""
        try:
            checked = self.arguments_model.model_validate(arguments)
        except pydantic.ValidationError as error:
            raise ToolError(self._explain(error)) from None
        fields = type(checked).model_fields
        return {str(fields[key].alias): getattr(checked, key) for key in checked.model_fields_set}

    def _named(self, arguments: dict[str, Any], positional: Sequence[Any]) -> dict[str, Any]:
        """All arguments by name."""
        if not positional:
            return arguments
        names = list(self.parameters.get("properties", {}))
        if len(positional) > len(names):
            raise ToolError(f"{self.name} takes at most {len(names)} arguments ({', '.join(names)}), not {len(positional)}")
        given = dict(zip(names, positional, strict=False))
        for name in given:
            if name in arguments:
                raise ToolError(f"argument '{name}' of {self.name} is given twice")
        return given | arguments

    def _explain(self, error: pydantic.ValidationError) -> str:
        parts = []
        for item in error.errors(include_url=False, include_context=False, include_input=False):
            where = ".".join(map(str, item["loc"]))
            if item["type"] == "extra_forbidden":
                known = self.parameters.get("properties", {})
                parts.append(f"'{where}' is not an argument of {self.name}{nearest(where, known)}")
            elif item["type"] == "missing":
                parts.append(f"argument '{where}' of {self.name} is missing")
            else:
                parts.append(f"argument '{where}' of {self.name}: {item['msg']}" if where else item["msg"])
        return "; ".join(parts)


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...
@overload
def tool(
    *, name: str | None = None, max_chars: int = MAX_CHARS, timeout: float | None = TIMEOUT
) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    max_chars: int = MAX_CHARS,
    timeout: float | None = TIMEOUT,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a `Tool` of a typed function; usable as `@tool` or `@tool(name=..., max_chars=..., timeout=...)`.

    It can then be named in `env.options` by its own name (see `find.find_tool`).
    The description is the docstring up to its first section; arguments are described under `Args:` or by
    `Annotated[..., pydantic.Field(description=...)]`.

    Raises:
        UserError: when the function has no docstring, an argument has no usable type, or it takes `*args`.
    """

    def make(given: Callable[..., Any]) -> Tool:
        made = _build(given, name, max_chars, timeout)
        _declared[f"{made.name} {getattr(given, '__module__', '')}:{getattr(given, '__qualname__', '')}"] = made
        return made

    return make if function is None else make(function)


def declared_tools() -> list[Tool]:
    """The tools that `tool` made and somebody still holds."""
    return list(_declared.values())


def as_tool(item: Callable[..., Any] | Tool) -> Tool:
    """`item` itself when it is a `Tool`, else the tool made of that function."""
    return item if isinstance(item, Tool) else _build(item, None, MAX_CHARS, TIMEOUT)


def tools_prompt(tools: Sequence[Tool], form: str = DEFAULT_FORMAT) -> str:
    """What a system prompt says of the tools, in a call format, where the chat template has no branch for them."""
    return call_format(form).describe([each.schema for each in tools]) if tools else ""


def _build(function: Callable[..., Any], name: str | None, max_chars: int, timeout: float | None) -> Tool:
    name = name or str(getattr(function, "__name__", type(function).__name__))
    if not _NAME.fullmatch(name):
        raise UserError(f"'{name}' cannot name a tool; give it one of letters, digits, '_' and '-': @tool(name=...)")
    if inspect.iscoroutinefunction(function):
        raise UserError(f"tool '{name}' is an async function; write it as a plain one")
    if timeout is not None and not 0 < timeout <= threading.TIMEOUT_MAX:
        raise UserError(f"tool '{name}' has the timeout {timeout:g}; give seconds above 0, or None for no limit")
    description, about = _read_docstring(inspect.getdoc(function) or "")
    if not description:
        raise UserError(f"tool '{name}' has no docstring; write one, because it is what the model reads")
    model = _arguments_model(function, name, about)
    parameters = model.model_json_schema(schema_generator=_Untitled)
    for noise in ("title", "additionalProperties"):
        parameters.pop(noise, None)
    parameters = {"type": "object", "properties": {}} | parameters
    return Tool(name, description, parameters, function, model, max_chars, timeout)


def _arguments_model(function: Callable[..., Any], name: str, about: dict[str, str]) -> type[pydantic.BaseModel]:
    """A model with one field an argument. Fields are numbered and aliased, so that any argument name will do."""
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        raise UserError(f"the types of tool '{name}' cannot be resolved: {error}") from error
    fields: dict[str, Any] = {}
    for index, (key, parameter) in enumerate(inspect.signature(function).parameters.items()):
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise UserError(f"tool '{name}' has '{parameter}', which cannot be passed by name; write it plainly")
        if key not in hints:
            raise UserError(f"argument '{key}' of tool '{name}' has no type; write one, as in '{key}: str'")
        default = ... if parameter.default is parameter.empty else parameter.default
        if key in about:
            field = pydantic.Field(default, alias=key, description=about[key])
        else:  # no description at all, so that one in Annotated stands
            field = pydantic.Field(default, alias=key)
        fields[f"argument_{index}"] = (hints[key], field)
    try:
        return pydantic.create_model(name, __config__=pydantic.ConfigDict(extra="forbid"), **fields)
    except pydantic.errors.PydanticUserError as error:
        raise UserError(f"tool '{name}' has an argument whose type has no JSON schema: {error.message}") from error


class _Untitled(GenerateJsonSchema):
    """Leaves out the title pydantic gives every field; it repeats the name and costs tokens."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _read_docstring(doc: str) -> tuple[str, dict[str, str]]:
    """The text before the first section, and what the `Args:` section says of each argument."""
    head: list[str] = []
    about: dict[str, str] = {}
    section = current = ""
    for line in doc.splitlines():
        if header := _SECTION.match(line):
            section = header[1]
        elif not section:
            head.append(line)
        elif section in ("Args", "Arguments", "Parameters") and line.strip():
            if entry := re.match(r"\s{1,4}(\w+)(?:\s*\([^)]*\))?:\s*(.*)", line):
                current = entry[1]
                about[current] = entry[2].strip()
            elif current:
                about[current] = f"{about[current]} {line.strip()}".strip()
    return "\n".join(head).strip(), about


def _told(error: BaseException) -> str:
    """An exception as the model reads it."""
    try:
        message = said(error)
        if isinstance(error, ToolError) and message:
            return f"{error.label}{message}"
        return f"Error: {type(error).__name__}: {message}" if message else f"Error: {type(error).__name__}"
    except BaseException as problem:  # of a label or a name that was made to raise
        if is_ctrl_c(problem):
            raise
        return "Error: the tool raised an exception that cannot be shown"


def _copied(value: Any) -> Any:
    """JSON of which no part is shared with `value`."""
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, list) else value
