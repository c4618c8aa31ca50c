"""Trajectories in the terminal: tokens shaded by their divergence, and the same in words for a log file without colour."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.text import Text

from agentdistill.errors import UserError, nearest
from agentdistill.report.text import shorten, visible
from agentdistill.trajectory import FloatArray, Trajectory, Turn
from agentdistill.viewer.derive import Derived, derive
from agentdistill.viewer.encode import gaps, mean, says, spans
from agentdistill.viewer.source import STOPS, Source, iteration_of, teacher_of
from agentdistill.viewer.tokens import Pieces

BOUNDS = (0.05, 0.2, 0.6, 1.5, 4.0)  # nats at which a shade deepens, as on the page
_ORANGE = ("#fff2e4", "#ffdfc0", "#fdc48d", "#f7a65c", "#ee8a36")
_BLUE = ("#ebf3fd", "#cfe3fa", "#a6cbf5", "#7ab1ee", "#5397e2")
_BARS = "▁▂▃▄▅▆▇█"
_NAMED = 3  # tokens of a turn whose divergence is told in words


@dataclass(slots=True)
class Selection:
    """Which trajectories to show.

    Attributes:
        ids: these, in any batch; all when empty.
        success: only successes or only failures; None for both.
        scorer: whose divergence is shown; the one that training took for the teacher by default.
        limit: how many at most.
    """

    ids: Sequence[str] = ()
    success: bool | None = None
    scorer: str = ""
    limit: int = 3

    def takes(self, item: Trajectory) -> bool:
        """Whether a trajectory is one of them."""
        return (not self.ids or item.id in self.ids) and (self.success is None or item.success == self.success)


@dataclass(slots=True)
class _Seen:
    """What a search through the store met."""

    total: int = 0
    fitting: int = 0
    ids: list[str] = field(default_factory=list)
    scorers: set[str] = field(default_factory=set)


def show(source: Source, chosen: Selection, console: Console) -> int:
    """Print the chosen trajectories, and how many more would fit.

    Returns:
        How many were shown.

    Raises:
        UserError: when an id or the scorer is not there, or nothing is stored that fits.
    """
    seen, say, shown, bare = _Seen(), Pieces(source.decoder()), 0, set[str]()
    for batch, item, derived in _picked(source, chosen, seen):
        if not shown and console.color_system and not console.no_color:
            console.print(_legend())
        shown += 1
        if item.n_action_tokens and not _compared(item, source, chosen.scorer):
            bare.add(batch)
        for line in told(item, derived, batch, source, say, chosen.scorer):
            console.print(line)
    for name in chosen.ids:
        if name not in seen.ids:
            raise UserError(f"'{source.run.path}' has no trajectory '{name}'{nearest(name, seen.ids)}")
    if chosen.scorer and chosen.scorer not in seen.scorers:
        raise UserError(f"'{source.run.path}' has no scores of '{chosen.scorer}'{nearest(chosen.scorer, seen.scorers)}")
    if bare:
        source.note(
            f"{', '.join(sorted(bare))}: no scores to compare with, so nothing is shaded; "
            f"`agentdistill score {shlex.quote(str(source.run.path))} --scorer NAME=MODEL` adds them"
        )
    for note in source.run.notes:
        console.print(Text(f"note: {note}", "dim"))
    if not shown:
        raise UserError(f"none of the {seen.total} trajectories of '{source.run.path}' is what was asked for")
    if seen.fitting > shown:
        console.print(
            Text(f"{seen.fitting - shown} more of {seen.total}: --limit {seen.fitting}, or choose by --trajectory", "dim")
        )
    return shown


def _picked(source: Source, chosen: Selection, seen: _Seen) -> Iterator[tuple[str, Trajectory, Derived]]:
    """The chosen trajectories with their batch and what follows from their scores; everything that is met goes into `seen`."""
    for batch, items in source.read():
        seen.total += len(items)
        seen.ids += [item.id for item in items]
        seen.scorers |= {name for item in items for name in item.scores}
        places = [place for place, item in enumerate(items) if chosen.takes(item)]
        room = max(0, chosen.limit - seen.fitting)
        seen.fitting += len(places)
        if not places[:room] or (chosen.scorer and chosen.scorer not in seen.scorers):
            continue
        every = derive(items, source.method, iteration_of(batch), source.note)  # advantages may need the whole batch
        for place in places[:room]:
            yield batch, items[place], every[place]


def told(item: Trajectory, derived: Derived, batch: str, source: Source, say: Pieces, scorer: str = "") -> Iterator[Text]:
    """The lines of one trajectory: what it was, KL by turn, the conversation, and why it ended."""
    name = _compared(item, source, scorer)
    parted = gaps(item, item.scores.get(name)) or [[] for _ in item.turns]
    weights, weights_name = _weights(derived, source, name)
    means = [mean(values) for values in parted]
    yield from _heading(item, batch, source, name, mean([gap for turn in parted for gap in turn]))
    if any(map(math.isfinite, means)):
        yield Text.assemble(("KL by turn  ", "dim"), _bars(means), "  ", " ".join(_number(mean) for mean in means))
    for message in item.messages:
        yield _said(message["role"], message["content"])
    for k, (turn, (start, _)) in enumerate(zip(item.turns, spans(item), strict=True)):
        facts = [f"turn {k + 1}", turn.author]
        facts += [f"KL {means[k]:.3f}"] if math.isfinite(means[k]) else []
        if weights is not None and turn.author == "student" and turn.action_ids:
            facts.append(f"{weights_name} {weights[start]:.2f}")
        yield Text("")
        yield Text(" · ".join(facts), "bold")
        yield from _turn(turn, parted[k], say)
    yield Text.assemble(("✓ success" if item.success else "✗ failure", "bold green" if item.success else "bold red"),
                        f" after {_count(len(item.turns), 'turn')}: {STOPS[item.stop_reason]}.")  # fmt: skip
    if item.error:
        yield Text(shorten(visible(item.error)), "red")


def _compared(item: Trajectory, source: Source, scorer: str) -> str:
    """The scorer that a trajectory is held against: the chosen one, the run's teacher, or whoever scored it; else nobody."""
    if scorer:
        return scorer if scorer in item.scores else ""
    teacher = source.teacher if source.teacher in item.scores else teacher_of(item)
    return teacher or ""


def _heading(item: Trajectory, batch: str, source: Source, scorer: str, kl: float) -> Iterator[Text]:
    yield Text("")
    yield Text.assemble(("── ", "dim"), (visible(item.id), "bold"), (" ──", "dim"))
    facts = [
        "success" if item.success else "failure", str(item.stop_reason).replace("_", " "), visible(item.env_id),
        visible(item.task_id), f"batch {batch}", _count(len(item.turns), "turn"), _count(item.n_action_tokens, "student token"),
        f"reward {item.reward:.2f}",
    ]  # fmt: skip
    depth = source.depth.get(iteration_of(batch) or -1)
    facts += [f"depth {depth}"] if depth is not None else []
    facts += [f"branch of {visible(item.parent)}"] if item.parent else []
    facts += [f"scorer {visible(scorer)}, mean KL {_number(kl)}"] if math.isfinite(kl) else []
    yield Text(" · ".join(fact for fact in facts if fact))


def _turn(turn: Turn, apart: list[float], say: Pieces) -> Iterator[Text]:
    """The message with its tokens shaded, the furthest of them in words, tool calls, and what the environment answered."""
    parts = [visible(piece) for piece in say(turn.action_ids)]
    shaded = Text()
    for place, piece in enumerate(parts):
        shaded.append(piece, style(apart[place]) if place < len(apart) else None)
    yield _indented(shaded)
    if not says(turn, parts, say):
        yield _indented(Text.assemble(("handed over: ", "dim"), visible(turn.action)))
    order = sorted((place for place, gap in enumerate(apart) if abs(gap) >= BOUNDS[1]), key=lambda place: -abs(apart[place]))
    if order:
        named = (f"“{_one_line(parts[place])}” {_number(apart[place], plus=True)}" for place in order[:_NAMED])
        yield Text("    furthest: " + ", ".join(named), "dim")
    for call in turn.tool_calls:
        yield Text.assemble(
            "    ", ("tool" if call.ok else "tool error", "dim" if call.ok else "bold red"), f" {visible(call.name)}"
        )
    flags = [f"reward {turn.reward:+.2f}"] if turn.reward else []
    flags += [name for name in ("terminated", "truncated") if getattr(turn, name)]
    flags += ["cut off by the limit on tokens"] if turn.finish == "length" else []
    yield _said("→", turn.observation, ", ".join(flags))


def style(gap: float) -> str | None:
    """A token's shade by log π − log T in nats: orange where the student finds it likelier, blue where the scorer does."""
    level = sum(abs(gap) >= bound for bound in BOUNDS) if not math.isnan(gap) else 0
    return f"#1b2027 on {(_ORANGE if gap > 0 else _BLUE)[level - 1]}" if level else None


def _legend() -> Text:
    out = Text("nats a token, student − scorer: ", "dim")
    for colours, sign in ((_BLUE[::-1], "−"), (_ORANGE, "+")):
        bounds = BOUNDS[::-1] if sign == "−" else BOUNDS
        for colour, bound in zip(colours, bounds, strict=True):
            out.append(f" {sign}{bound:g} ", f"#1b2027 on {colour}")
        out.append("  " if sign == "−" else "", "default")
    return out


def _weights(derived: Derived, source: Source, scorer: str) -> tuple[FloatArray | None, str]:
    """The run's own weights where it has some that are not SOD's, else SOD's under the scorer; and what they are called."""
    method = source.method
    other = method is not None and (method.gate.name != "none" or method.step_weight.name not in ("none", "sod"))
    return (derived.weight, "weight") if other and derived.weight is not None else (derived.sod.get(scorer), "SOD weight")


def _bars(means: Sequence[float]) -> str:
    """A character a turn; a negative mean is the lowest one, a turn without scores a dot."""
    most = max(0.05, *(mean for mean in means if math.isfinite(mean)))
    return "".join(_BARS[min(7, max(0, int(8 * mean / most)))] if math.isfinite(mean) else "·" for mean in means)


def _said(who: str, content: str, more: str = "") -> Text:
    lead = f"{who}  "
    text = shorten(visible(content)).replace("\n", "\n" + " " * len(lead)) or "(nothing)"
    return Text.assemble(
        (lead, "bold" if who == "→" else "dim"), (text, "dim" if who == "→" else ""), f"  [{more}]" if more else ""
    )


def _indented(text: Text) -> Text:
    return Text("\n").join([Text("    ") + line for line in text.split("\n", allow_blank=True)])


def _one_line(piece: str) -> str:
    return piece.replace("\n", "↵").replace("\t", "⇥")


def _number(value: float, *, plus: bool = False) -> str:
    return "–" if math.isnan(value) else f"{value:+.2f}" if plus else f"{value:.2f}"


def _count(n: int, one: str) -> str:
    return f"{n:,} {one}{'' if n == 1 else 's'}"
