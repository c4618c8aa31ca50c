"""The mixed policy: the student begins, the teacher ends, and only the chosen author's tokens carry loss."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from agentdistill import environment
from agentdistill.chat import Chat
from agentdistill.cli import main
from agentdistill.config import override
from agentdistill.errors import UserError
from agentdistill.policies.base import Request, Sample, SamplingParams
from agentdistill.policies.local import TransformersSampler
from agentdistill.policies.model import CausalLM
from agentdistill.policies.scorer import TransformersScorer
from agentdistill.policies.scripted import ScriptedSampler
from agentdistill.pool import EnvPool
from agentdistill.rollout import Limits, Rollout, Task
from agentdistill.signals import Method
from agentdistill.store import Store
from agentdistill.training.mixed import authors, own_turns
from agentdistill.training.score import score, trainable
from agentdistill.training.update import accumulate
from agentdistill.trajectory import Trajectory
from tests.training.looped import Even, checked, experiment, loop, near
from tests.training.scored_run import RUN, iterations, stopped_and_resumed

Maker = Callable[[int], CausalLM]
PARAMS = SamplingParams(max_tokens=8)


@pytest.fixture(scope="module", autouse=True)
def even() -> Iterator[None]:
    environment.register("lab/Even-v0", Even)
    yield
    environment.unregister("lab/Even-v0")


# Who plays


def test_how_many_turns_are_the_students_own_is_drawn_from_the_whole_range_and_depends_on_the_place_only() -> None:
    config = experiment(method="dasd", mixed={"least": 1, "most": 3})
    drawn = [own_turns(config, iteration, task, rollout) for iteration in range(9) for task in range(9) for rollout in range(3)]
    count = Counter(drawn)
    assert count.keys() == {1, 2, 3}
    assert min(count.values()) > len(drawn) / 5
    assert drawn[:9] == [own_turns(config, 0, task, rollout) for task in range(3) for rollout in range(3)]
    assert len({tuple(drawn[9 * i : 9 * i + 9]) for i in range(9)}) == 9
    assert any(len({own_turns(config, 1, task, rollout) for rollout in range(3)}) > 1 for task in range(3))
    assert own_turns(experiment(), 1, 0, 0) is None


@pytest.mark.parametrize(
    ("learn", "whose"), [("teacher", ["teacher"]), ("student", ["student"]), ("both", ["student", "teacher"])]
)
def test_the_authors_whose_tokens_carry_loss(learn: str, whose: list[str]) -> None:
    assert list(authors(experiment(mixed={"most": 1, "learn": learn}))) == whose
    assert list(authors(experiment())) == ["student"]


class Heard(ScriptedSampler):
    """A scripted partner that remembers the contexts it was given."""

    def __init__(self, chat: Chat, script: Callable[[int, int], str]) -> None:
        super().__init__(chat, script)
        self.contexts: list[tuple[int, list[int]]] = []

    def generate(self, requests: list[Request], params: SamplingParams) -> list[Sample]:  # type: ignore[override]
        self.contexts += [(request.key, list(request.context)) for request in requests]
        return super().generate(requests, params)


def played(chat: Chat, tasks: list[Task]) -> tuple[list[Trajectory], Heard]:
    partner = Heard(chat, lambda key, turn: f"9{turn}")
    pool = EnvPool("lab/Guess-v0", {"size": 8})
    rollout = Rollout(pool, ScriptedSampler(chat, lambda key, turn: f"8{turn}"), chat, Limits(max_turns=5), partner=partner)
    return rollout.run(tasks, PARAMS, "b"), partner


def test_the_teacher_goes_on_in_the_students_context_after_its_turns(chat: Chat) -> None:
    tasks = [Task(5, 1, own_turns=n) for n in (0, 2, 9)] + [Task(5, 1), Task(5, 1, prefix=("7",), own_turns=1)]
    out, partner = played(chat, tasks)
    actions = [[turn.action for turn in t.turns] for t in out]
    assert actions == [
        ["90", "91", "92", "93", "94"], ["80", "81", "90", "91", "92"], ["80", "81", "82", "83", "84"],
        ["80", "81", "82", "83", "84"], ["7", "80", "90", "91", "92"],
    ]  # fmt: skip
    whose = [[turn.author[0] for turn in t.turns] for t in out]
    assert whose == [list("ttttt"), list("ssttt"), list("sssss"), list("sssss"), list("esttt")]
    assert {key for key, _ in partner.contexts} == {0, 1, 4}
    for key, context in partner.contexts:
        ids = out[key].stream().ids.tolist()
        assert ids[: len(context)] == context
    first = next(context for key, context in partner.contexts if key == 1)
    turns = out[1].turns
    assert first == [i for turn in turns[:2] for i in turn.prompt_ids + turn.action_ids] + turns[2].prompt_ids


def test_a_task_that_is_to_be_handed_over_needs_somebody_to_take_it(chat: Chat) -> None:
    rollout = Rollout(EnvPool("lab/Guess-v0", {}), ScriptedSampler(chat, lambda key, turn: "3"), chat, Limits(max_turns=3))
    with pytest.raises(UserError, match="a task is to be handed over to a partner after the student's own turns, and the"):
        rollout.run([Task(5, 1, own_turns=1)], PARAMS, "b")


# What is learnt


@pytest.fixture(scope="module")
def episodes(make_lm: Maker) -> list[Trajectory]:
    """Episodes that one tiny model begins and another ends."""
    student, teacher = make_lm(0), make_lm(1)
    rollout = Rollout(
        EnvPool("lab/Even-v0"), TransformersSampler(student), Chat(student.tokenizer), Limits(4, 160),
        partner=TransformersSampler(teacher),
    )  # fmt: skip
    tasks = [Task(seed, seed, group=seed, own_turns=seed % 4) for seed in range(8)]
    return rollout.run(tasks, SamplingParams(max_tokens=3), "b")


def ends(t: Trajectory, author: str) -> list[tuple[list[int], int]]:
    """Every token that an author wrote, behind all that stands before it."""
    out, ids = [], list[int]()
    for turn in t.turns:
        ids = (list(turn.prompt_ids) if turn.fresh else ids + turn.prompt_ids) if ids else list(turn.prompt_ids)
        for token in turn.action_ids:
            if turn.author == author:
                out.append((list(ids), token))
            ids = [*ids, token]
    return out


def test_imitation_is_the_mean_cross_entropy_of_the_teachers_tokens_and_no_others(
    make_lm: Maker, episodes: list[Trajectory]
) -> None:
    student, method = make_lm(0), Method.load("dasd")
    rows = trainable(episodes, ("teacher",))
    assert len(rows) <= len(episodes)
    tokens = [each for t in rows for each in ends(t, "teacher")]
    assert len(tokens) == sum(t.written(("teacher",)) for t in rows) > 20
    losses = [
        -torch.log_softmax(student.model(input_ids=torch.tensor([context])).logits[0, -1].double(), -1)[token]
        for context, token in tokens
    ]
    expected = torch.stack(losses).mean()
    student.model.zero_grad(set_to_none=True)
    expected.backward()
    by_hand = torch.cat([p.grad.flatten() for p in student.model.parameters() if p.grad is not None])
    student.model.zero_grad(set_to_none=True)
    scored = score(student, TransformersScorer(make_lm(1)), rows, 4096, authors=("teacher",))
    streams = method.apply(scored.table)
    assert int(streams.mask.sum()) == len(tokens)
    totals = accumulate(
        student, method, scored, streams, streams.coef, range(len(scored.sequences)), 4096, "here"
    )  # fmt: skip
    found = torch.cat([p.grad.flatten() for p in student.model.parameters() if p.grad is not None])
    assert totals.loss == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(found, by_hand, rtol=1e-3, atol=1e-6)


def test_both_authors_tokens_are_all_tokens_and_the_students_own_are_as_without_a_teacher(
    make_lm: Maker, episodes: list[Trajectory]
) -> None:
    student, teacher = make_lm(0), TransformersScorer(make_lm(1))
    rows = trainable(episodes, ("student", "teacher"))
    tables = {
        who: score(student, teacher, trainable(episodes, who), 4096, authors=who).table
        for who in (("student",), ("teacher",), ("student", "teacher"))
    }
    both = tables["student", "teacher"]
    assert both.is_action.sum() == tables["student",].is_action.sum() + tables["teacher",].is_action.sum()
    assert both.is_action.sum() == sum(t.written(("student", "teacher")) for t in rows)
    np.testing.assert_allclose(
        np.sort(both["rkl"][both.is_action & (both["own"] > 0)]),
        np.sort(tables["student",]["rkl"][tables["student",].is_action]), rtol=1e-4, atol=1e-6,
    )  # fmt: skip


# A run


def mixed(run: Path, **changes: Any) -> dict[str, Any]:
    """The run's experiment again, its models as they are; the teacher ends what the student begins."""
    about = {
        **RUN, "student": {"model": str(run / "student")}, "teacher": {"model": str(run / "teacher")},
        "method": "dasd", "mixed": {"most": 2},
        "train": {"iterations": 3, "tasks": 3, "rollouts": 2, "checkpoint_every": 1, "lr": 1e-3},
    }  # fmt: skip
    return override(about, changes)


@pytest.fixture(scope="module")
def whole(guess_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DASD's mixed policy, from a file by the command."""
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "e.yaml").write_text(yaml.safe_dump(mixed(guess_run)))
    assert main(["train", str(folder / "e.yaml"), "--out", str(folder / "run")]) == 0
    return folder / "run"


def test_a_run_stores_whose_turns_are_whose_and_trains_on_the_teachers(whole: Path) -> None:
    records, store = iterations(whole), Store(whole / "store")
    for k, record in enumerate(records, 1):
        rows = store.read(f"iter-{k:06d}")
        assert record["action_tokens"] == sum(t.written(("teacher",)) for t in rows)
        assert record["teacher_turns"] == pytest.approx(np.mean([sum(u.author == "teacher" for u in t.turns) for t in rows]))
        for t in rows:
            whose = [turn.author for turn in t.turns]
            assert whose == sorted(whose)  # the student first, then the teacher
            assert whose.count("student") <= 2
    assert any(record["teacher_turns"] > 0 for record in records)
    assert all(record["grad_norm"] > 0 for record in records)


def test_a_stopped_run_goes_on_to_the_same_numbers(guess_run: Path, whole: Path, tmp_path: Path) -> None:
    folder = stopped_and_resumed(mixed(guess_run), tmp_path / "cut", "iteration 2/3")
    assert (folder / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert (folder / "final" / "model.safetensors").read_bytes() == (whole / "final" / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("method", "learn"), [("dasd", "teacher"), ("fkl", "teacher"), ("rkl", "both"), ("opd", "student"), ("vopd", "student")]
)
def test_methods_that_hold_of_an_authors_tokens_train_on_them(method: str, learn: str, make_lm: Maker, tmp_path: Path) -> None:
    student = make_lm(0)
    teacher = near(student, "teacher", 1, noise=0.5)
    about = experiment(method=method, mixed={"most": 2, "learn": learn}, **{"train.tasks": 4})
    [record] = loop(tmp_path, copy.deepcopy(student), about, teacher, student)
    assert record["grad_norm"] > 0
    assert record["action_tokens"] > 0
    assert record["teacher_turns"] > 0


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no section": ({"mixed": None}, "method 'dasd' needs tokens that somebody else than the student wrote (divergence 'sft'), "
                   "and the experiment has no mixed section"),
    "nobody": ({"teacher": None}, "mixed hands an episode over to the teacher, and the experiment has no teacher"),
    "itself": ({"teacher": {"model": "live"}}, "and the teacher is model: live; a teacher that goes on is another model"),
    "more in view": ({"teacher.privileged": True}, "and the teacher is privileged: true; a teacher that goes on"),
    "never": ({"mixed": {"least": 3, "most": 3}}, "mixed.least is 3 and env.max_turns is 3, so the teacher"),
    "no range": ({"mixed": {"least": 2, "most": 1}}, "mixed.most is 1, below mixed.least, which is 2"),
    "rewards": ({"method": {"preset": "opd", "rl": "grpo"}, "train.rollouts": 2}, "rl 'grpo' credits the student with how"),
    "sampled": ({"method": "opd"}, "signal 'opd' is an expectation over the student's own samples, and mixed"),
    "estimated": ({"method": {"divergence": "k2"}}, "divergence 'k2' is an expectation over the student's own samples"),
    "own imitation": ({"mixed.learn": "student"}, "divergence 'sft' imitates what the teacher wrote, and mixed.learn is"),
    "both imitation": ({"mixed.learn": "both"}, "divergence 'sft' imitates what the teacher wrote, and mixed.learn 'both'"),
    "importance": ({"method": {"preset": "dasd", "importance": "truncated"}}, "importance 'truncated' weighs tokens by who"),
    "sampler": ({"train.old_logprobs": "sampler"}, "train.old_logprobs is 'sampler', and mixed.learn is 'teacher': the"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_hold_of_a_mixed_policy_is_refused_when_the_experiment_is_read(what: str) -> None:
    changes, says = REFUSED[what]
    about: dict[str, Any] = {
        "env": {"id": "lab/Guess-v0", "max_turns": 3}, "student": {"model": "lab/s"}, "teacher": {"model": "lab/t"},
        "method": "dasd", "mixed": {"most": 1},
    }  # fmt: skip
    with pytest.raises(UserError) as error:
        checked(override(about, changes))
    assert says in str(error.value)
    assert "\n" not in str(error.value)
