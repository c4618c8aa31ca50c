"""Expected gradients by brute force: every sequence of a tiny autoregressive model, weighted by its probability."""

import math
from dataclasses import replace

import pytest
import torch

from agentdistill.signals import DIVERGENCES, RL_TERMS
from tests.signals.worlds import POSITIONS, PREFIXES, SEQUENCES, L, World, advantages, assert_same, kl, policy_gradient


@pytest.fixture
def world():
    return World.random()


def token_rkl(world):
    return world.gradient(world.expected(kl(world.student, world.teacher)))


def test_probabilities_of_the_enumerated_sequences_sum_to_one(world):
    assert world.chance.sum().item() == pytest.approx(1.0)


def test_policy_gradient_form_equals_the_exact_reverse_kl_gradient_in_expectation(world, make_table):
    assert_same(policy_gradient(world, make_table, "opd"), token_rkl(world))


def test_undiscounted_reward_to_go_equals_the_gradient_of_the_sequence_kl(world, make_table):
    student, teacher = world.sampled(world.student).sum(1), world.sampled(world.teacher).sum(1)
    sequence_kl = (student.exp() * (student - teacher)).sum()
    gradient = policy_gradient(world, make_table, {"signal": {"kind": "opd", "gamma": 1.0}})
    assert_same(gradient, world.gradient(sequence_kl))
    assert not torch.allclose(gradient, token_rkl(world))


def mean_advantage(world, make_table, spec):
    """`[n_prefix]` summed over sequences by their chance: 0 where the mean at each position is."""
    mean = torch.zeros(len(PREFIXES), dtype=torch.float64)
    weight = world.chance[:, None] * advantages(world, make_table, spec)
    return mean.index_add_(0, POSITIONS.flatten(), weight.flatten())


def test_vopd_keeps_the_expected_gradient_and_centres_the_advantage(world, make_table):
    assert_same(policy_gradient(world, make_table, "vopd"), token_rkl(world))
    assert mean_advantage(world, make_table, "vopd").abs().max() < 1e-12


@pytest.mark.parametrize("k", [2, 3])
def test_vopd_over_the_top_k_keeps_the_expected_gradient_and_is_centred_over_all_ids_only(world, make_table, k):
    spec = {"preset": "vopd", "baseline": {"top_k": k}}
    assert_same(policy_gradient(world, make_table, spec), token_rkl(world))
    assert (mean_advantage(world, make_table, spec).abs().max() < 1e-12) == (k == 3)


def test_any_action_independent_baseline_keeps_the_expected_gradient(world, make_table):
    gradient = policy_gradient(world, make_table, {"signal": "opd", "baseline": "test-prefix-number"})
    assert_same(gradient, token_rkl(world))


@pytest.mark.parametrize(("estimator", "kind", "times"), [("k2", "rkl", 1), ("k3", "fkl", 1), ("abs", "tvd", 2)])
def test_estimator_as_a_loss_has_the_gradient_of_its_divergence(world, estimator, kind, times):
    loss = DIVERGENCES.resolve(estimator)(world.sampled(world.student), world.sampled(world.teacher))
    exact = world.expected(DIVERGENCES.resolve(kind)(world.student, world.teacher))
    assert_same(world.gradient((world.chance[:, None] * loss).sum()), times * world.gradient(exact))


def test_k1_as_a_loss_has_no_expected_gradient(world):
    loss = DIVERGENCES.resolve("k1")(world.sampled(world.student), world.sampled(world.teacher))
    assert loss.abs().max() > 0.1
    assert world.gradient((world.chance[:, None] * loss).sum()).abs().max() < 1e-12


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0, 1.25, 2.0])
def test_g_opd_has_the_gradient_of_the_kl_to_the_extrapolated_teacher(world, make_table, lam):
    target = torch.log_softmax((1 - lam) * world.reference + lam * world.teacher, -1)
    gradient = policy_gradient(world, make_table, {"preset": "opd", "signal": {"kind": "g-opd", "lam": lam}})
    assert_same(gradient, world.gradient(world.expected(kl(world.student, target))))
    assert torch.allclose(gradient, token_rkl(world)) == (lam == 1)


LIGHTNING = {"preset": "opd", "signal": "lightning"}


def test_lightning_on_the_students_own_rollouts_has_the_gradient_of_online_opd(world, make_table):
    assert_same(policy_gradient(world, make_table, LIGHTNING), policy_gradient(world, make_table, "opd"))


def drifted(world):
    """The same student, on rollouts that a former one left behind."""
    return replace(world, sampler=torch.log_softmax(0.3 * world.reference + world.student.detach(), -1))


def test_lightning_of_a_student_that_has_become_the_teacher_has_no_gradient_on_anyones_rollouts(world, make_table):
    arrived = replace(drifted(world), teacher=world.student.detach())
    assert advantages(arrived, make_table, LIGHTNING).abs().max() == 0
    # OPD, taking the policy that sampled for the present one, would go on pushing.
    assert policy_gradient(arrived, make_table, "opd").abs().max() > 1e-2


def test_lightning_of_a_drifted_student_differs_from_online_opd(world, make_table):
    gradient = policy_gradient(drifted(world), make_table, LIGHTNING)
    assert not torch.allclose(gradient, policy_gradient(world, make_table, "opd"), rtol=0.01)
    assert not torch.allclose(gradient, policy_gradient(drifted(world), make_table, "opd"), rtol=0.01)


REWARD = torch.tensor([math.sin(1 + 2 * i) for i in range(len(SEQUENCES))], dtype=torch.float64)


@pytest.mark.parametrize(("kind", "times"), [("rloo", 1.0), ("dr-grpo", 0.5), ("grpo", None)])
def test_expected_gradient_of_group_advantages_in_groups_of_two(world, make_table, kind, times):
    """All 729 pairs of sequences as groups: RLOO is unbiased, Dr. GRPO is (n−1)/n of it, GRPO is another direction."""
    n = len(SEQUENCES)
    pairs = [(i, j) for i in range(n) for j in range(n)]
    table = make_table(
        [[L]] * (2 * n * n), reward=[float(REWARD[s]) for p in pairs for s in p], group=[g for g in range(n * n) for _ in "ab"]
    )
    first = torch.tensor(RL_TERMS.resolve(kind)(table)[table.is_action]).reshape(n, n, 2, L)[:, :, 0]
    chance = world.chance[:, None] * world.chance
    logprob = world.sampled(world.student)
    gradient = world.gradient((chance[..., None] * first * logprob[:, None]).sum())
    exact = world.gradient((logprob.sum(1).exp() * REWARD).sum())
    if times is None:
        cosine = torch.nn.functional.cosine_similarity(gradient.flatten(), exact.flatten(), dim=0)
        assert 0.5 < cosine < 0.999
    else:
        assert_same(gradient, times * exact)


def test_student_equal_to_teacher_learns_nothing(world, make_table):
    same = replace(world, teacher=world.student.detach())
    assert policy_gradient(same, make_table, "opd").abs().max() < 1e-12
