"""The page: what is shown of each run, put into the template as one file that needs nothing from anywhere."""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
import numpy as np

from agentdistill.errors import UserError
from agentdistill.intervals import Mean, Rate
from agentdistill.provenance import BEFORE, Origins, commands, origins, teacher_of
from agentdistill.report import figures, index_figures, result_figures, time_figures
from agentdistill.report.data import Record, Run, column, number
from agentdistill.report.examples import LEVELS, Example, examples
from agentdistill.report.growth import Growth, kl_growth
from agentdistill.report.style import Picture
from agentdistill.store import Store

STAGES = ("before", "after", "teacher")


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the summary table: one run at one temperature."""

    run: str
    temperature: str
    rates: dict[str, Rate | None]
    verdict: str
    rewards: dict[str, Mean | None] = field(default_factory=dict)


@dataclass(slots=True)
class Section:
    """All that the page shows of one run. `origins` is empty where steps could not be traced."""

    run: Run
    growth: Growth
    facts: list[tuple[str, str]]
    pictures: list[Picture]
    examples: list[Example] = field(default_factory=list)
    types: list[tuple[str, dict[str, Rate | None]]] = field(default_factory=list)
    origins: Origins | None = None


def section(run: Run) -> Section:
    """Gather what the page shows of a run."""
    traced, kinds = trace(run), types(run)
    drawn = [
        result_figures.by_type([run], [kinds]), index_figures.kl_heat_map([run]), index_figures.kl_curves([run]),
        index_figures.step_weights([run]), figures.depth([run]), figures.training([run]), figures.episodes([run]),
        index_figures.endings(run), result_figures.origin(run, traced) if traced else None,
        time_figures.throughput([run]), time_figures.time_by_phase(run), figures.imitation([run]),
    ]  # fmt: skip
    shown = [picture for picture in drawn if picture]
    return Section(run, kl_growth(run), facts(run), shown, examples(run), kinds, traced)


def overlay(runs: Sequence[Run], sections: Sequence[Section]) -> list[Picture]:
    """The figures above the runs' own: success, and, of several runs, every curve over each other."""
    drawn = [figures.success(runs)]
    if len(runs) > 1:
        traced = [(i, part.run, part.origins) for i, part in enumerate(sections) if part.origins]
        drawn += [
            result_figures.by_type(runs, [part.types for part in sections]), index_figures.kl_heat_map(runs),
            index_figures.kl_curves(runs), index_figures.step_weights(runs), figures.depth(runs), figures.training(runs),
            figures.episodes(runs), result_figures.origin_of_runs(traced), time_figures.throughput(runs),
            time_figures.time_of_runs(runs), figures.imitation(runs),
        ]  # fmt: skip
    return [picture for picture in drawn if picture]


def trace(run: Run) -> Origins | None:
    """Where the steps of the stored iterations come from; a note with the command that is needed where that is not known."""
    try:
        store = Store(run.path / "store")
        batches = run.batches("iter-")
        if not batches:
            return None
        teacher = teacher_of(run.path, store)
        if BEFORE in store.scorers():
            found = origins(store, teacher, BEFORE, batches)
            if found.counts:
                return found
        missing = [BEFORE] if teacher in {name for item in run.read(batches[-1]) for name in item.scores} else [teacher, BEFORE]
    except (UserError, OSError):
        return None  # no teacher; what is damaged is noted where episodes are read
    needed = " and ".join(commands(run.path, missing, teacher, BEFORE))
    run.notes.append(f"Which steps come from the teacher and which from the student before can be traced after: {needed}")
    return None


def rows(run: Run) -> list[Row]:
    """The run's lines of the summary table; from `summary.json` where no evaluation is in the metrics."""
    by_temperature: dict[str, dict[str, Rate | None]] = {}
    rewards: dict[str, dict[str, Mean | None]] = {}
    for temperature in run.temperatures:
        found = {stage: run.evaluations(stage, temperature)[-1:] for stage in STAGES}
        if any(found.values()):
            label = "greedy" if temperature == 0 else f"T = {temperature:g}"
            by_temperature[label] = {stage: _rate(records[0]) if records else None for stage, records in found.items()}
            rewards[label] = {stage: _mean(records[0]) if records else None for stage, records in found.items()}
    if not by_temperature:
        stored = {stage: run.summary.get(stage) for stage in STAGES}
        rates = {stage: _rate(record) if isinstance(record, dict) else None for stage, record in stored.items()}
        by_temperature = {"": rates} if any(rates.values()) else {}
    return [Row(run.name, label, rates, _verdict(rates), rewards.get(label, {})) for label, rates in by_temperature.items()]


def types(run: Run) -> list[tuple[str, dict[str, Rate | None]]]:
    """Success by task type and stage, of the stages' last evaluations that tell types apart."""
    out: dict[str, dict[str, Rate | None]] = {}
    for stage in STAGES:
        for record in run.evaluations(stage)[-1:]:
            kinds = record.get("by_type")
            for name, rate in (kinds if isinstance(kinds, dict) else {}).items():
                if isinstance(rate, dict):
                    out.setdefault(str(name), {})[stage] = _rate(rate)
    return sorted(out.items())


def facts(run: Run) -> list[tuple[str, str]]:
    """Figures for the run's head line, as name and text."""
    out = [("iterations", f"{len(run.iterations):,}")]
    kl = column(run.iterations, "kl")
    kl = kl[np.isfinite(kl)]
    if len(kl):
        m = int(np.clip(len(kl) // 10, 1, 10))
        out.append(("KL per token, first to last", f"{kl[:m].mean():.3f} → {kl[-m:].mean():.3f} nats"))
    tokens = np.nansum(column(run.iterations, "action_tokens"))
    if tokens > 0:
        out.append(("student tokens", f"{tokens:,.0f}"))
    seconds = number(run.summary.get("seconds"))
    if not math.isfinite(seconds):
        seconds = float(np.nansum(column(run.timings, "total")))
    if seconds > 0:
        out.append(("wall time", _duration(seconds)))
    reasons: Counter[str] = Counter()
    for record in run.iterations:
        stops = record.get("stop_reasons")
        for name, count in (stops if isinstance(stops, dict) else {}).items():
            reasons[str(name)] += 0 if math.isnan(number(count)) else int(count)
    if total := sum(reasons.values()):
        shares = [f"{name.replace('_', ' ')} {count / total:.0%}" for name, count in reasons.most_common(4)]
        out.append(("episodes ended by", ", ".join(shares)))
    return out


def render(runs: Sequence[Run], comparison: Sequence[Picture], sections: Sequence[Section]) -> str:
    """The page's HTML. Everything that comes from a run is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"percent": _percent, "data_uri": _data_uri, "nats": _nats, "number": _number}
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs"
    html = environment.get_template("template.html").render(
        title=title, rows=[row for run in runs for row in rows(run)], stages=STAGES, comparison=comparison,
        sections=sections, levels=LEVELS,
    )  # fmt: skip
    return html.encode("utf-8", "backslashreplace").decode("utf-8")


def _rate(record: Record) -> Rate | None:
    success, low, high = (number(record.get(key)) for key in ("success", "low", "high"))
    if not math.isfinite(success):
        return None
    n, tasks = (0 if math.isnan(value := number(record.get(key))) else int(value) for key in ("n", "tasks"))
    low, high = (value if math.isfinite(value) else success for value in (low, high))
    return Rate(success, low, high, n, tasks or n)


def _mean(record: Record) -> Mean | None:
    try:
        return Mean.from_dict(record["reward"])
    except (KeyError, TypeError):  # an evaluation from before rewards were kept
        return None


def _verdict(rates: dict[str, Rate | None]) -> str:
    before, after = rates.get("before"), rates.get("after")
    if before is None or after is None:
        return "not finished" if after is None else ""
    change = f"{100 * (after.success - before.success):+.1f} points"
    if after.low > before.high or after.high < before.low:
        return f"{change}; the intervals do not overlap"
    return f"{change}; the intervals overlap"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "?"


def _nats(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
