"""A page for every entry of every axis, for every schedule and for every preset, from the registries.

What stands on such a page is what the code says: the docstring, the signature's settings, the needs, the test that holds it.
Notes and traps are the paragraphs of docs/methods.md that begin with the entry's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agentdistill import yamltext
from agentdistill.curricula import SCHEDULES
from agentdistill.signals import PRESETS, Method
from agentdistill.signals.catalogue import REGISTRIES, held_by, paper
from agentdistill.signals.method import AXES, ORIGINS
from agentdistill.signals.registry import PROVISIONS
from sitegen.markdown import Doc, papers, parse, settings, table

DOCS = Path(__file__).resolve().parents[1]
KINDS = {**REGISTRIES, "schedule": SCHEDULES}
TITLES = {
    "signal": "Signals", "baseline": "Baselines", "selection": "Token selection", "step_weight": "Step weights",
    "gate": "Gates", "rl": "Reward terms", "ratio": "Ratios", "importance": "Importance weights",
    "divergence": "Divergences", "aggregation": "Aggregations", "coefficient": "Coefficients", "schedule": "Schedules",
}  # fmt: skip
ABOUT = {
    "signal": "What a student token is credited with by the teacher, in the policy-gradient form.",
    "baseline": "What is taken off a signal so that it varies less.",
    "selection": "Which of the tokens that may carry loss are kept.",
    "step_weight": "How much each step's distillation term counts.",
    "gate": "Where the distillation term is let through.",
    "rl": "The reward's part of the advantage.",
    "ratio": "What the surrogate's ratio is taken against.",
    "importance": "What a token counts that another policy than the student drew.",
    "divergence": "A loss that is differentiated itself, exact over the vocabulary or of sampled tokens.",
    "aggregation": "How token losses become one number.",
    "coefficient": "A factor that changes with the iteration.",
    "schedule": "How far into an episode the student is allowed, iteration by iteration.",
}
# Sections of docs/methods.md whose tables hold what is said of the entries of an axis.
ANCHORS = {
    "signal": "signals", "baseline": "baselines", "selection": "token-selection", "step_weight": "step-weights",
    "gate": "gates", "rl": "reward-terms", "ratio": "the-surrogate", "importance": "the-surrogate", "divergence": "divergences",
    "aggregation": "aggregations", "coefficient": "one-equation", "schedule": "schedules",
}  # fmt: skip


def pages() -> dict[str, str]:
    """Markdown by path in docs/."""
    notes = _notes((DOCS / "methods.md").read_text(encoding="utf-8"))
    out = {f"methods/{axis}/index.md": _axis(axis) for axis in KINDS} | {"methods/presets/index.md": _presets()}
    for axis, name in _entries():
        out[f"methods/{axis}/{name}.md"] = _entry(axis, name, notes.get(name, ""))
    for name in _published():
        out[f"methods/presets/{name}.md"] = _preset(name)
    return out


def navigation() -> list[dict[str, Any]]:
    """The part of the navigation below Methods."""
    parts: list[dict[str, Any]] = [
        {"Presets": ["methods/presets/index.md", *({name: f"methods/presets/{name}.md"} for name in _published())]}
    ]
    for axis in KINDS:
        own = [{name: f"methods/{axis}/{name}.md"} for of, name in _entries() if of == axis]
        parts.append({TITLES[axis]: [f"methods/{axis}/index.md", *own]})
    return parts


def example(name: str) -> str:
    """The sections of an experiment that a preset needs beside environment, student and teacher, as YAML."""
    needs = Method.load(name).needs
    sections: dict[str, Any] = {"method": name}
    if needs & {"reference", "reference-distribution"}:
        sections["reference"] = {"model": "initial"}
    if needs & {"rewards", "groups"} or Method.load(name).rewarded:
        sections["train"] = {"rollouts": 4}
    if "demonstrations" in needs:
        sections["mixed"] = {"most": 4}
    return yamltext.dump(sections)


def _entries() -> Iterator[tuple[str, str]]:
    """(axis, name) of everything registered by the package; `none`, which is nothing, is left out."""
    for axis, registry in KINDS.items():
        for name in registry.names():
            if name != "none" and registry.describe(name).function.__module__.startswith("agentdistill."):
                yield axis, name


def _published() -> list[str]:
    return sorted(name for name in PRESETS if ORIGINS[name].source)


def _axis(axis: str) -> str:
    rows = []
    for of, name in _entries():
        if of == axis:
            function = KINDS[axis].describe(name).function
            rows.append([f"[`{name}`]({name}.md)", _first(parse(function.__doc__ or "")), papers(paper(function))])
    key = "" if axis == "coefficient" else f" An experiment chooses it under `{_key(axis)}`; `none` is no {_word(axis)}."
    key = key if axis not in ("ratio", "aggregation") else key.partition(";")[0] + "."
    return f"# {TITLES[axis]}\n\n{ABOUT[axis]}{key}\n\n{table(['name', 'what', 'paper'], rows)}"


def _entry(axis: str, name: str, notes: str) -> str:
    found = KINDS[axis].describe(name)
    doc = parse(found.function.__doc__ or "")
    needs = [f"{need} ({PROVISIONS[need]})" for need in sorted(found.needs)]
    facts = [
        ["axis", f"[{_word(axis)}](index.md)"],
        ["paper", papers(paper(found.function))],
        ["needs", "; ".join(needs) or ("an expert in the environment" if name == "tcod-b2f" else "nothing")],
        ["held by", held_by(name, found.function).replace("`", "`tests/", 1)],
        ["code", f"`{found.function.__module__}.{found.function.__qualname__}`"],
    ]
    parts = [f"# {name}", table(["", ""], facts), "## What it computes", papers(doc.text)]
    if chosen := settings(found.function, doc.arguments):
        parts += ["## Settings", chosen]
    parts += ["## In an experiment", f"```yaml\n{_use(axis, name, found.settings)}```"]
    if users := [each for each in _published() if _uses(each, axis, name)]:
        parts.append("Presets with it: " + ", ".join(f"[`{each}`](../presets/{each}.md)" for each in users) + ".")
    if notes:
        parts += ["## Notes and traps", papers(notes)]
    parts.append(f"More on this axis: [{TITLES[axis]}](../../methods.md#{ANCHORS[axis]}) in the overview.")
    return "\n\n".join(parts) + "\n"


def _preset(name: str) -> str:
    method, origin = Method.load(name), ORIGINS[name]
    rows = []
    for axis in AXES:
        choice = getattr(method, axis)
        if choice.name != "none":
            chosen = ", ".join(f"{key} {_value(value)}" for key, value in choice.params.items())
            rows.append([f"`{axis}`", f"[`{choice.name}`](../{axis}/{choice.name}.md)", chosen])
    for number in ("kd_coef", "rl_coef", "clip_low", "clip_high", "dual_clip"):
        value = method.model_dump(mode="json")[number]
        if isinstance(value, dict):
            chosen = ", ".join(f"{key} {_value(v)}" for key, v in value.items() if key != "kind")
            rows.append([f"`{number}`", f"[`{value['kind']}`](../coefficient/{value['kind']}.md)", chosen])
        else:
            rows.append([f"`{number}`", _value(value), ""])
    needs = ", ".join(f"{need} ({PROVISIONS[need]})" for need in sorted(method.needs)) or "nothing"
    schedule = f"Its schedule is [`{origin.schedule}`](../schedule/{origin.schedule}.md), where the experiment names none.\n\n"
    return (
        f"# {name}\n\nSource: {papers(origin.source)}. Needs: {needs}.\n\n"
        f"{schedule if origin.schedule else ''}"
        f"{table(['axis', 'choice', 'settings'], rows)}\n"
        f"## In an experiment\n\n```yaml\n{example(name)}```\n\n"
        "Any axis can be changed over the preset: see [One equation](../../methods.md#one-equation). "
        "Each preset is trained with in `tests/training/test_presets.py`.\n"
    )


def _presets() -> str:
    rows = []
    for name in _published():
        axes = ", ".join(f"{axis} `{_kind(value)}`" for axis, value in PRESETS[name].items() if axis in AXES)
        rows.append([f"[`{name}`]({name}.md)", axes, papers(ORIGINS[name].source)])
    return (
        "# Presets\n\nA preset is a published combination of axes; `method: NAME` in an experiment takes it. "
        "What a paper asks for beside the loss, such as a teacher that is shown the plan, stands in other sections "
        f"([Presets](../../methods.md#presets) in the overview).\n\n{table(['preset', 'axes', 'source'], rows)}"
    )


def _use(axis: str, name: str, defaults: dict[str, Any]) -> str:
    """YAML that chooses an entry, on a method that has what it goes with."""
    given = {key: value for key, value in defaults.items() if value is not None}
    given = {
        key: {"norm": 256.0, "start": 1.0, "by": -0.01}[key] if value == "required" else value for key, value in given.items()
    }
    choice: Any = {"kind": name, **given} if given else name
    if axis == "schedule":
        return yamltext.dump({"schedule": choice})
    method: dict[str, Any] = {"kd_coef": choice} if axis == "coefficient" else {axis: choice}
    if axis in ("baseline", "selection", "step_weight", "gate", "importance", "aggregation", "coefficient"):
        method = {"preset": "opd", **method}
    if axis == "ratio":
        method = {"rl": "grpo", **method}
    return yamltext.dump({"method": method})


def _uses(preset: str, axis: str, name: str) -> bool:
    if axis == "schedule":
        return ORIGINS[preset].schedule == name
    if axis == "coefficient":
        return any(_kind(PRESETS[preset].get(key)) == name for key in ("kd_coef", "rl_coef"))
    return bool(_kind(PRESETS[preset].get(axis)) == name)


def _notes(page: str) -> dict[str, str]:
    """Paragraphs of prose that begin with an entry's name in bold code, or have one further in; by name."""
    out: dict[str, list[str]] = {}
    for paragraph in re.split(r"\n\s*\n", page):
        for name in dict.fromkeys(re.findall(r"\*\*`([\w-]+)`\*\*", paragraph)):
            out.setdefault(name, []).append(re.sub(r"^\s*- ", "", paragraph))
    return {name: "\n\n".join(found) for name, found in out.items()}


def _first(doc: Doc) -> str:
    return doc.text.split("\n\n")[0]


def _kind(value: Any) -> Any:
    return value["kind"] if isinstance(value, dict) else value


def _value(value: Any) -> str:
    return "null" if value is None else str(value)


def _key(axis: str) -> str:
    return "schedule" if axis == "schedule" else f"method.{axis}"


def _word(axis: str) -> str:
    return {"rl": "reward term", "step_weight": "step weight", "selection": "token selection"}.get(axis, axis)
