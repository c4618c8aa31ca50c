"""A few episodes to read: a success, a failure, and the one where student and teacher disagree most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agentdistill.report.data import Run
from agentdistill.report.text import Decode, pieces, shorten, visible
from agentdistill.trajectory import Scores, StopReason, Trajectory, Turn

LEVELS = (0.05, 0.15, 0.4, 1.0, 2.0, 4.0)  # nats at which a token's shade deepens
_LOOK_BACK = 12  # batches to search for a success and a failure
_MOST_TURNS, _MOST_TOKENS = 40, 1500


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a message: its text, its shade (0 to 6; -1 without a score) and what hovering shows."""

    text: str
    level: int
    title: str


@dataclass(frozen=True, slots=True)
class TurnView:
    """One turn as shown. `kl` is the mean log-ratio in nats of its tokens, NaN without scores."""

    number: int
    author: str
    tokens: list[Token]
    dropped: int
    observation: str
    reward: float
    kl: float
    finish: str


@dataclass(frozen=True, slots=True)
class Example:
    """One episode as shown."""

    heading: str
    batch: str
    episode: str
    task: str
    seed: int
    stop: str
    success: bool
    reward: float
    temperature: float
    scorer: str
    kl: float
    messages: list[tuple[str, str]]
    turns: list[TurnView]
    dropped: int


def choose(run: Run) -> list[tuple[str, str, Trajectory]]:
    """Heading, batch and trajectory of a late success, a late failure and the highest mean KL seen.

    Looked for in the latest batches, and in the first one, where disagreement is usually greatest.
    """
    names = run.batches("iter-") or run.batches("eval-")
    found: dict[str, tuple[str, Trajectory]] = {}
    highest: tuple[str, Trajectory] | None = None
    most = -math.inf
    for name in dict.fromkeys([*names[: -_LOOK_BACK - 1 : -1], *names[:1]]):
        for item in run.read(name):
            if item.stop_reason == StopReason.ENV_ERROR or not item.turns:
                continue
            found.setdefault("Success" if item.success else "Failure", (name, item))
            kl = mean_ratio(item)
            if kl > most:
                most, highest = kl, (name, item)
    chosen: list[tuple[str, str, Trajectory]] = [(key, *found[key]) for key in ("Success", "Failure") if key in found]
    if highest is not None and all(highest[1] is not item for _, _, item in chosen):
        chosen.append(("Highest KL", *highest))
    return chosen


def examples(run: Run) -> list[Example]:
    """The chosen episodes, ready to show."""
    chosen = choose(run)
    decode = load_decoder(run) if chosen else None
    return [_example(heading, batch, item, decode) for heading, batch, item in chosen]


def mean_ratio(item: Trajectory) -> float:
    """Mean of log π − log T in nats over the student tokens, an estimate of the reverse KL; NaN without scores."""
    _, scores = _scorer(item)
    if scores is None:
        return math.nan
    ours = [value for turn in item.turns if turn.author == "student" for value in turn.logprobs_t1]
    gaps = [p - q for p, q in zip(ours, scores.logprobs.tolist(), strict=False) if math.isfinite(p - q)]
    return sum(gaps) / len(gaps) if gaps else math.nan


def load_decoder(run: Run, models: Sequence[Path] = ()) -> Decode | None:
    """Decode ids with the run's tokenizer, or that of one of its models; None, and a note, where there is none that loads.

    Args:
        models: further folders to look in, after the run's own.
    """
    own = [run.path / name for name in ("tokenizer", "final", "student")]
    folder = next((each for each in (*own, *models) if (each / "tokenizer.json").is_file()), run.path / "tokenizer")
    if not folder.is_dir():
        run.notes.append("There is no tokenizer in the run, so tokens are shown as ids.")
        return None
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # whatever a damaged folder makes a tokenizer raise, ids can still be shown
        run.notes.append(f"{folder} could not be loaded ({str(error).splitlines()[0]}), so tokens are shown as ids.")
        return None
    return lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _scorer(item: Trajectory) -> tuple[str, Scores | None]:
    """The first scorer whose scores fit the episode."""
    for name, scores in item.scores.items():
        if len(scores.logprobs) == item.n_action_tokens:
            return name, scores
    return "", None


def _example(heading: str, batch: str, item: Trajectory, decode: Decode | None) -> Example:
    name, scores = _scorer(item)
    turns, at = [], 0
    for number, turn in enumerate(item.turns, start=1):
        n = len(turn.action_ids) if turn.author == "student" else 0
        theirs = scores.logprobs[at : at + n].tolist() if scores is not None else []
        at += n
        if number <= _MOST_TURNS:
            turns.append(_turn(number, turn, theirs, decode))
    return Example(
        heading=heading, batch=batch, episode=visible(item.id), task=visible(item.task_id), seed=item.seed,
        stop=str(item.stop_reason).replace("_", " "), success=item.success, reward=item.reward,
        temperature=item.temperature, scorer=visible(name), kl=mean_ratio(item),
        messages=[(visible(m["role"]), shorten(visible(m["content"]))) for m in item.messages],
        turns=turns, dropped=max(0, len(item.turns) - _MOST_TURNS),
    )  # fmt: skip


def _turn(number: int, turn: Turn, theirs: list[float], decode: Decode | None) -> TurnView:
    texts = pieces(turn.action_ids, decode)
    ours = turn.logprobs_t1 if theirs else []
    tokens, gaps = [], []
    for index, token in enumerate(turn.action_ids):
        gap = ours[index] - theirs[index] if index < min(len(ours), len(theirs)) else math.nan
        title = f"id {token}"
        if index < len(turn.logprobs_t1):
            title += f" · student {turn.logprobs_t1[index]:.3f}"
        if math.isfinite(gap):
            gaps.append(gap)
            title += f" · teacher {theirs[index]:.3f} · difference {gap:+.3f} nats"
        level = sum(abs(gap) >= bound for bound in LEVELS) if math.isfinite(gap) else -1
        tokens.append(Token(visible(texts[index]), level, title))
    return TurnView(
        number=number, author=turn.author, tokens=tokens[:_MOST_TOKENS], dropped=max(0, len(tokens) - _MOST_TOKENS),
        observation=shorten(visible(turn.observation)), reward=turn.reward,
        kl=sum(gaps) / len(gaps) if gaps else math.nan, finish=turn.finish,
    )  # fmt: skip
