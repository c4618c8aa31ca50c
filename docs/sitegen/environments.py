"""What a page asks for by a comment: options of an environment, how an episode begins, settings of views, data sets.

<!-- options: agentdistill/TextWorld-v0 -->       a table from the signature and docstring
<!-- episode: textworld -->                       its recorded beginning (see `observations.py`)
<!-- settings: view window -->                    settings of a registered view
<!-- data sets -->                                the registered data sets
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import gymnasium as gym

from agentdistill import environment
from agentdistill.datasets import registry
from agentdistill.view import VIEWS
from sitegen.markdown import parse, settings, table

OBSERVATIONS = Path(__file__).resolve().parents[1] / "observations"


def fill(markdown: str) -> str:
    """The page with its comments replaced."""
    markdown = re.sub(r"<!-- options: (\S+) -->", lambda found: options(found[1]), markdown)
    markdown = re.sub(r"<!-- episode: (\S+) -->", lambda found: episode(found[1]), markdown)
    markdown = re.sub(r"<!-- settings: view (\S+) -->", lambda found: view(found[1]), markdown)
    return markdown.replace("<!-- data sets -->", data_sets()) if "<!-- data sets -->" in markdown else markdown


def options(env_id: str) -> str:
    """The options of a built-in environment, with its settings that are not in the signature named by the docstring."""
    environment.load_plugins()
    made: Any = gym.envs.registration.load_env_creator(str(gym.registry[env_id].entry_point))
    said = _arguments(made)
    rows = settings(made, said, keyword_only=False)
    taken = inspect.signature(made).parameters
    more = [f"`{name}`: {text}" for name, text in said.items() if name not in taken]
    return rows + ("\n" + "\n\n".join(more) + "\n" if more else "")


def episode(name: str) -> str:
    """A recorded beginning, as a box."""
    told = json.loads((OBSERVATIONS / f"{name}.json").read_text(encoding="utf-8"))
    tasks = ", ".join(f"{split} {size:,}" for split, size in told["tasks"].items() if size)
    given = f" with `{_options(told['options'])}`" if told["options"] else ""
    lines = [f"Task `{told['task_id']}`{given}. Tasks: {tasks}.", ""]
    for who, text in _said(told):
        lines += [f"**{who}**", "", "```text", *(text or " ").splitlines(), "```", ""]
    body = "\n".join(f"    {line}".rstrip() for line in lines)
    return f'??? example "How an episode begins{given}"\n\n{body}\n'


def view(name: str) -> str:
    """The settings of a view."""
    found = VIEWS.describe(name).function
    return settings(found, parse(found.__doc__ or "").arguments)


def data_sets() -> str:
    """The data sets of the package: what each is, its licence, and what gets it."""
    rows = []
    for name in registry.names():
        found = registry.find(name)
        rows.append([f"`{name}`", found.about, found.licence, found.remedy()])
    return table(["name", "what", "licence", "to get it"], rows)


def _options(given: dict[str, Any]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in given.items()) + "}"


def _said(told: dict[str, Any]) -> list[tuple[str, str]]:
    out = [("System prompt", told["system"])] if told["system"] else []
    out.append(("First observation", told["observation"]))
    for move in told["moves"]:
        reward = f", reward {move['reward']:g}" if move["reward"] else ""
        out += [("Expert", move["action"]), (f"Observation{reward}", move["observation"])]
    return out


def _arguments(made: Any) -> dict[str, str]:
    """What the docstrings of a class and of those it is made of say of arguments."""
    out: dict[str, str] = {}
    for each in reversed(inspect.getmro(made)):
        if each.__module__.startswith("agentdistill.") and each.__doc__:
            out.update(parse(each.__doc__).arguments)
    own = parse(made.__doc__ or "").arguments
    taken = set(inspect.signature(made).parameters)
    return {name: text for name, text in out.items() if name in taken or name in own}
