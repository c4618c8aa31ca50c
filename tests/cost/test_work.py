"""What an experiment asks for: lengths that are allowed, or those of a run, and how its episodes are played together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import agentdistill as ad
from agentdistill.cost.work import allowed, like, reads_early, rounds_of
from agentdistill.policies.base import Request, SamplingParams
from agentdistill.policies.local import TransformersSampler
from agentdistill.policies.model import CausalLM
from agentdistill.signals import Method
from agentdistill.trajectory import StopReason, Trajectory, Turn
from tests.training.test_run import BASE, run

pytestmark = pytest.mark.usefixtures("undrawn")  # nobody looks at the runs' pictures
BEGINNING = [5 + i % 40 for i in range(150)]


def test_lengths_are_those_of_a_run_that_was_made(played: Path) -> None:
    found, items = like(played, 1), [t for name in ("iter-000001", "iter-000002") for t in ad.load_run(played).read(name)]
    assert found.turns == pytest.approx(sum(len(t.turns) for t in items) / len(items))
    assert found.written == pytest.approx(sum(t.n_action_tokens for t in items) / len(items))
    assert found.read == pytest.approx(sum(len(t.stream().ids) for t in items) / len(items))
    assert 0 < found.environment < 1
    assert found.known
    assert not allowed(ad.experiment(BASE)).known
    assert allowed(ad.experiment(BASE)).read >= found.read
    assert (found.contexts, found.passed) == (1, 1)  # a sequence an episode, and by itself in a pass of one token
    together, apart = like(played, 10**6), like(played, 10**6, packed=False)
    lengths = [[len(t.stream().ids) for t in ad.load_run(played).read(name)] for name in ("iter-000001", "iter-000002")]
    padded = sum(len(batch) * max(batch) for batch in lengths) / sum(map(sum, lengths))
    assert apart.passed == apart.told == padded  # nobody is told more
    assert together.passed == together.told == 1  # nothing is padded, and they are too short to share


def test_a_window_makes_several_short_contexts_of_an_episode(tmp_path: Path) -> None:
    window = {"env.view": {"kind": "window", "pairs": 1}, "env.max_context": 160}
    small = {"train.iterations": 1, "sampling.max_tokens": 3, "eval.every": 0, "eval.tasks": 1, "student.sft.demonstrations": 4}
    folder = run(tmp_path / "r", **window, **small)[0]
    found, stored = like(folder, 1), ad.load_run(folder).read("iter-000001")
    assert found.contexts == sum(len(t.turns) for t in stored) / len(stored) > 1  # each of its turns is fresh
    assert found.context == round(found.read / found.contexts) <= 160


@pytest.mark.parametrize("fresh", [False, True])
def test_rounds_are_what_a_sampler_computes(make_lm: Callable[[int], CausalLM], fresh: bool) -> None:
    sampler, contexts = TransformersSampler(make_lm(0)), [list[int](), list[int]()]
    turns: list[list[Turn]] = [[], []]
    shown = [[[*BEGINNING, 50, 51], [*BEGINNING, 52]], [[53, 54], [55, 56]], [[57]]]  # the second one has two turns
    for k, prompts in enumerate(shown):
        for i, prompt in enumerate(prompts):
            given = BEGINNING[: 9 - k] + prompt if fresh and k else prompt
            contexts[i] = given if fresh else contexts[i] + given
            turns[i].append(Turn(given, [], "", "", fresh=fresh))
        asked = [Request(i, contexts[i], k, frozenset(), max_tokens=2 + k + i) for i in range(len(prompts))]
        for i, sample in enumerate(sampler.generate(asked, SamplingParams(max_tokens=9))):
            turns[i][-1].action_ids = sample.ids
            contexts[i] = contexts[i] + sample.ids
    rounds = rounds_of([Trajectory(f"e{i}", "x", i, "x", [], each, StopReason.TERMINATED) for i, each in enumerate(turns)])
    assert [each.longest for each in rounds] == [3, 4, 4]
    lengths = [len(BEGINNING) + 2 + 1, 8 + 2 + 2, 7 + 1 + 2] if fresh else [153, 159, 162]
    assert [each.span for each in rounds] == pytest.approx(lengths, abs=1)
    decoded = sum(len(turn.action_ids) - 1 for each in turns for turn in each)
    assert sum(each.computed for each in rounds) + decoded == sampler.forwarded


@pytest.mark.parametrize(
    ("method", "early"),
    [
        ("opd-exact", False),
        ("gkd", False),
        ("dckd", False),
        ("opd", True),
        ("sod", True),
        ("tip-soft-or", True),
        ("grpo", True),
    ],
)
def test_a_pass_of_the_student_is_counted_where_a_method_reads_what_it_gives(method: str, early: bool) -> None:
    assert reads_early(Method.load(method)) == early
