"""Tools and graders by name, as experiment files give them in `env.options`.

    tools: [calculator, "my_pkg.tools:convert", {search: {folder: docs}}]
    grade: number

A name without a colon is one that `@ad.tool` declared, a built-in tool, or an entry point of the group `agentdistill.tools`.
A mapping of one name to settings calls what the name stands for, which then is a function that returns a `Tool`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from agentdistill import graders
from agentdistill.errors import UserError, nearest
from agentdistill.faults import described, one_line
from agentdistill.tool import Tool, as_tool, declared_tools

GROUP = "agentdistill.tools"
ToolSpec = Tool | Callable[..., Any] | str | Mapping[str, Any]
Grader = Callable[[str, Any], bool]


def find_tool(spec: ToolSpec) -> Tool:
    """The tool that `spec` is or names (see the module).

    Raises:
        UserError: for a name that nothing has (the nearest is given) or that two tools have, a path that cannot be
            imported, settings that do not fit, or something that is no tool.
    """
    if isinstance(spec, Mapping):
        if len(spec) != 1:
            raise UserError(
                f"a tool with settings is one name and its settings, as in {{search: {{folder: docs}}}}, not {spec}"
            )
        ((name, settings),) = spec.items()
        return _made(str(name), _named(str(name)), settings)
    if not isinstance(spec, str):
        if callable(spec):
            return as_tool(spec)
        raise UserError(f"{spec!r} is neither a tool nor a function nor the name of one")
    found = _named(spec)
    if isinstance(found, Tool):
        return found
    if not callable(found):
        raise UserError(f"'{spec}' is neither a tool nor a function but of type {type(found).__name__}")
    return _made(spec, found, {}) if _makes_tools(found) else as_tool(found)


def find_grader(spec: Grader | str) -> Grader:
    """The grader that `spec` is or names: one of `agentdistill.graders`, or `module:attribute`.

    Raises:
        UserError: for a name that nothing has (the nearest is given), a path that cannot be imported, or what cannot be called.
    """
    if not isinstance(spec, str):
        if not callable(spec):
            raise UserError(
                f"a grader is a function (answer, expected) -> bool or the name of one, not {one_line(repr(spec), 80)}"
            )
        return spec
    if ":" in spec:
        found = import_path(spec)
        if not callable(found):
            raise UserError(f"'{spec}' is no grader but of type {type(found).__name__}; a grader is (answer, expected) -> bool")
        grader: Grader = found
        return grader
    known: dict[str, Grader] = {name: each for name, each in vars(graders).items() if _is_grader(name, each)}
    if spec not in known:
        raise UserError(f"there is no grader '{spec}'{nearest(spec, known)}, or name your own as module:function")
    return known[spec]


def tool_names() -> list[str]:
    """Every name that `find_tool` knows without importing a path."""
    return sorted({*_built_in(), *(each.name for each in declared_tools()), *(point.name for point in _points())})


def import_path(path: str) -> Any:
    """The attribute at `module:attribute`; modules in the current folder are found too.

    Raises:
        UserError: when there is none, or its module cannot be imported.
    """
    module_name, _, attribute = path.partition(":")
    here = os.getcwd()
    missing = here not in sys.path and "" not in sys.path
    if missing:  # the command `agentdistill` does not have it there, `python script.py` does
        sys.path.append(here)
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise UserError(f"'{path}' cannot be imported: {described(error)}") from error
    finally:
        if missing and here in sys.path:
            sys.path.remove(here)
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [name for name in dir(found) if not name.startswith("_")]
            raise UserError(f"'{module_name}' has no attribute '{attribute}'{nearest(part, public)}")
        found = getattr(found, part)
    return found


def _named(name: str) -> Any:
    """What a name stands for: a tool, or something to make one of."""
    if ":" in name:
        return import_path(name)
    declared = [each for each in declared_tools() if each.name == name]
    if len(declared) > 1:
        places = ", ".join(f"{each.function.__module__}:{each.function.__qualname__}" for each in declared)
        raise UserError(f"several tools are named '{name}' ({places}); name the one that is meant as module:attribute")
    if declared:
        return declared[0]
    if name in _built_in():
        return import_path(_built_in()[name])
    for point in _points():
        if point.name == name:
            try:
                return point.load()
            except (Exception, SystemExit) as error:
                owner = f" of {point.dist.name}" if point.dist else ""
                raise UserError(f"tool '{name}'{owner} cannot be loaded from '{point.value}': {described(error)}") from error
    raise UserError(f"there is no tool '{name}'{nearest(name, tool_names())}, or name your own as module:attribute")


def _made(name: str, maker: Any, settings: Any) -> Tool:
    """The tool that `maker` gives for `settings`: arguments by name, or the first one alone."""
    if isinstance(maker, Tool) or not callable(maker) or not _makes_tools(maker):
        raise UserError(f"tool '{name}' takes no settings; give its name alone")
    args, named = ((), settings) if isinstance(settings, Mapping) else ((settings,), {})
    signature = inspect.signature(maker)
    try:
        signature.bind(*args, **named)
    except TypeError as error:
        odd = next((str(key) for key in named if key not in signature.parameters), None)
        near = "" if odd is None else nearest(odd, signature.parameters)
        raise UserError(f"tool '{name}' did not accept the settings {settings!r}: {error}{near}") from error
    made = maker(*args, **named)
    if not isinstance(made, Tool):
        raise UserError(f"'{name}' gave no tool but {type(made).__name__}")
    return made


def _makes_tools(maker: Any) -> bool:
    """Whether a function says that it returns a `Tool`."""
    said = getattr(maker, "__annotations__", {}).get("return")
    if isinstance(said, str):
        said = getattr(maker, "__globals__", {}).get(said)
    return isinstance(said, type) and issubclass(said, Tool)


def _built_in() -> Mapping[str, str]:
    tools: Mapping[str, str] = importlib.import_module("agentdistill.tools").BUILT_IN
    return tools


def _points() -> list[importlib.metadata.EntryPoint]:
    return list(importlib.metadata.entry_points(group=GROUP))


def _is_grader(name: str, value: Any) -> bool:
    return name in graders.__all__ and inspect.isfunction(value) and len(inspect.signature(value).parameters) == 2
