"""Imitation of what somebody else wrote, and why it asks for that."""

import torch

from agentdistill.signals import DIVERGENCES
from tests.signals.distributions import Case
from tests.signals.worlds import World, assert_same, kl


def test_value_is_the_cross_entropy_of_the_token_and_its_gradient_softmax_less_one_hot():
    case = Case.random("sft")
    probability = torch.softmax(case.student.detach(), -1)
    expected = -probability.gather(1, case.ids[:, None])[:, 0].log()
    torch.testing.assert_close(case.value().detach(), expected)
    torch.testing.assert_close(case.gradient(), probability - torch.nn.functional.one_hot(case.ids, 7))


def test_on_the_teachers_samples_the_expected_gradient_is_that_of_the_forward_kl():
    world = World.random()
    loss = DIVERGENCES.resolve("sft")(world.student)  # of every id at every prefix
    assert_same(world.gradient((world.teacher.exp() * loss).sum()), world.gradient(kl(world.teacher, world.student).sum()))


def test_on_the_students_own_samples_it_has_no_expected_gradient_so_others_are_asked_for():
    world = World.random()
    loss = DIVERGENCES.resolve("sft")(world.student)
    assert world.gradient((world.student.detach().exp() * loss).sum()).abs().max() < 1e-12
    assert DIVERGENCES.resolve("sft").needs == {"demonstrations"}
