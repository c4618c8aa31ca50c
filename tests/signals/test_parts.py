"""What a divergence is called with, by what it needs."""

import pytest
import torch

from agentdistill.signals import DIVERGENCES, Method
from agentdistill.signals.parts import Parts, common_vocabulary


def sides(*widths):
    generator = torch.Generator().manual_seed(0)
    return [torch.log_softmax(torch.randn(4, width, generator=generator), -1) for width in widths]


def parts(asked, student, teacher, reference):
    ids = torch.tensor([0, 2, 1, 2])

    def give(name, value):
        def lazy():
            asked.append(name)
            return value

        return lazy

    def picked(side):
        return side.gather(1, ids[:, None])[:, 0]

    return Parts(
        ids=ids, logprob=picked(student), student=give("student", student), teacher_logprob=give("log T", picked(teacher)),
        teacher=give("teacher", teacher), reference=give("reference", reference),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        ("k2", ["log T"]),
        ("rkl", ["student", "teacher"]),
        ("bd-kd", ["student", "teacher"]),
        ("adpa", ["student", "teacher", "reference"]),
        ("none", []),
    ],
)
def test_only_what_a_divergence_needs_is_computed(kind, asked):
    student, teacher, reference = sides(5, 5, 5)
    seen = []
    method = Method.load({"divergence": kind, "rl": "grpo"})
    value = method.divergence_loss(parts(seen, student, teacher, reference))
    assert seen == asked
    ids = torch.tensor([0, 2, 1, 2])
    by_hand = {
        "k2": lambda f: f(*(s.gather(1, ids[:, None])[:, 0] for s in (student, teacher))),
        "rkl": lambda f: f(student, teacher),
        "bd-kd": lambda f: f(student, teacher, ids),
        "adpa": lambda f: f(student, teacher, reference),
        "none": lambda f: torch.zeros(4),
    }
    torch.testing.assert_close(value, by_hand[kind](DIVERGENCES.resolve(kind)))


def test_equal_heads_are_left_as_they_are():
    ours, theirs = sides(5, 5)
    assert common_vocabulary(ours, theirs) == (ours, theirs)


def test_padded_heads_are_cut_to_the_ids_that_all_have_and_renormalised():
    narrow, wide, wider = sides(4, 5, 7)
    cut = common_vocabulary(narrow, wide, wider)
    assert cut[0] is narrow
    for side, whole in zip(cut[1:], (wide, wider), strict=True):
        torch.testing.assert_close(side.exp().sum(-1), torch.ones(4))
        torch.testing.assert_close(side[:, 0] - side[:, 3], whole[:, 0] - whole[:, 3])
