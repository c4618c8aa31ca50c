"""The command line, the fields of an experiment, and the API's pages."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import typing
from typing import Any

from agentdistill import cli, cli_data, fields
from sitegen.markdown import plain, table

# The API: a page a group, the modules whose public names stand on it.
API = {
    "verbs": ("Verbs", "What the command line does, as functions: `ad.train` and so on.", ["agentdistill.api"]),
    "environment": ("Environments", "", ["agentdistill.environment", "agentdistill.registration", "agentdistill.view"]),
    "tools": ("Tools and graders", "", ["agentdistill.tool", "agentdistill.graders", "agentdistill.find"]),
    "trajectory": ("Trajectories and the store", "", ["agentdistill.trajectory", "agentdistill.store"]),
    "signals": (
        "Methods",
        "",
        [f"agentdistill.signals.{name}" for name in ("method", "registry", "table", "provenance", "dasd")],
    ),
    "curricula": ("Schedules", "", ["agentdistill.curricula.schedule"]),
    "policies": ("Engines", "", ["agentdistill.policies.base", "agentdistill.policies.load"]),
    "statistics": ("Statistics", "", ["agentdistill.compare", "agentdistill.intervals"]),
    "errors": ("Errors", "", ["agentdistill.errors"]),
}


def pages() -> dict[str, str]:
    """Markdown by path in docs/."""
    out = {"reference/cli.md": _cli(), "reference/experiment.md": _experiment()}
    for name, (title, about, modules) in API.items():
        parts = [f"# {title}\n\n{about}"]
        for module in modules:
            own = "    options: {show_root_heading: false, show_root_toc_entry: false, heading_level: 3}\n"
            parts.append(f"## `{module}`\n\n::: {module}\n{own}")
        out[f"reference/api/{name}.md"] = "\n\n".join(parts)
    return out


def navigation() -> list[dict[str, str]]:
    """The API's part of the navigation."""
    return [{title: f"reference/api/{name}.md"} for name, (title, _, _) in API.items()]


def verbs() -> dict[str, type]:
    """The dataclass behind every verb, by name; `data list` for those below a verb."""
    out: dict[str, type] = {}
    for prefix, union in (("", cli.Verb), ("data ", cli_data.Sub)):
        for each in typing.get_args(union):
            cls, conf = typing.get_args(each)[:2]
            out[prefix + str(conf.name)] = cls
    del out["data"]
    return out


def _cli() -> str:
    parts = [
        "# Command line\n\nMade from the code. `agentdistill VERB --help` says the same. `train` and `sft` take every "
        "[field of an experiment](experiment.md) besides, as `--section.field value`.\n\n"
        "Exit codes: 0 done; 1 something you can mend, said in one sentence on stderr; 2 wrong arguments; 70 a bug, with a "
        "traceback; 130 stopped by Ctrl-C or SIGTERM."
    ]
    for name, cls in verbs().items():
        positional, rows = [], []
        docs = _said(cls)
        for each in dataclasses.fields(cls):
            kind = inspect.get_annotations(cls).get(each.name) or each.type
            if each.name == "overrides":
                continue
            word = each.name.replace("_", "-")
            required = each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
            default = "" if required else _default(each.default)
            if "Positional" in str(kind):
                name_ = {"run-folder": "RUN"}.get(word, word.upper())
                positional.append(name_ if required else f"[{name_}]")
                rows.append([f"`{name_}`", "", docs.get(each.name, "")])
            else:
                rows.append([f"`--{word}`", default or "required", docs.get(each.name, "")])
        usage = " ".join(["agentdistill", name, *positional])
        about = plain(inspect.cleandoc(cls.__doc__ or ""))
        parts.append(f"## {name}\n\n`{usage}`\n\n{about}\n\n{table(['argument', 'default', ''], rows)}")
    return "\n\n".join(parts)


def _experiment() -> str:
    parts = [
        "# Experiment fields\n\nMade from the code. An experiment is one YAML file; `extends: other.yaml` takes what is not "
        "named from another. A field that is not here is refused with the nearest name that is. On the command line a field is "
        '`--section.field value`, in Python a keyword: `ad.train(file, **{"train.lr": 1e-6})`.'
    ]
    sections: dict[str, list[list[str]]] = {}
    for row in fields.rows():
        section = row.name.rpartition(".")[0]
        default = f"`{row.default}`" if row.default else "required"
        sections.setdefault(section, []).append([f"`{row.name}`", row.kind, default, row.meaning])
    for section in sorted(sections, key=lambda name: name != ""):
        title = f"`{section}`" if section else "Top level"
        parts.append(f"## {title}\n\n{table(['field', 'type', 'default', ''], sections[section])}")
    return "\n\n".join(parts)


def _said(cls: type) -> dict[str, str]:
    """The sentence under each field of a dataclass and of those it is made of."""
    out: dict[str, str] = {}
    for each in reversed(inspect.getmro(cls)):
        if not dataclasses.is_dataclass(each):
            continue
        body: Any = ast.parse(inspect.cleandoc("\n" + inspect.getsource(each))).body[0]
        for field, after in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                out[str(getattr(field.target, "id", ""))] = plain(str(after.value.value))
    return out


def _default(value: Any) -> str:
    words = {"None": "none", "''": "none", "True": "yes", "False": "no", "()": "none"}
    return words.get(repr(value), f"`{value}`")
