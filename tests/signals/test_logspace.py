import math

import pytest
import torch

from agentdistill.signals.logspace import entropy, kl_terms, log_sum, mix, normalise, scaled, tempered

INF = float("inf")


def log(*probabilities):
    return torch.tensor(probabilities, dtype=torch.float64).log()


def test_a_mixture_of_nothing_is_nothing():
    assert mix(log(0, 0, 0.5), log(0, 0.4, 0.5), 0.25).exp().tolist() == pytest.approx([0, 0.3, 0.5])
    assert mix(log(0.0), log(0.0), 0.25).item() == -INF


def test_terms_of_a_kl_are_zero_without_p_and_infinite_without_q():
    assert kl_terms(log(0, 0, 0.5, 0.5), log(0, 0.5, 0, 0.25)).tolist() == [0, 0, INF, 0.5 * math.log(2)]


def test_a_probability_too_small_for_the_format_makes_no_nan():
    tiny = torch.tensor([-200.0, -200.0], requires_grad=True)  # e^−200 is 0 in float32
    value = kl_terms(tiny, torch.tensor([-INF, -1.0]))
    value.sum().backward()
    assert value.tolist() == [INF, 0]
    assert tiny.grad.tolist() == [0, 0]


def test_a_row_without_mass_stays_without():
    dead = torch.full((1, 3), -INF)
    assert log_sum(dead).tolist() == [[-INF]]
    assert normalise(dead).tolist() == dead.tolist()
    assert entropy(dead).item() == 0


def test_temperature_one_is_the_very_tensor():
    logp = log(0.2, 0.8)
    assert tempered(logp, 1.0) is logp
    assert tempered(logp, 0.5).exp().tolist() == pytest.approx([0.04 / 0.68, 0.64 / 0.68])


def test_nothing_times_infinity_is_nothing():
    value = torch.tensor([INF, INF, 2.0], requires_grad=True)
    result = scaled(torch.tensor([0.0, 1.0, 3.0]), value)
    assert result.tolist() == [0, INF, 6]
    result.sum().backward()
    assert value.grad.tolist() == [0, 1, 3]
    assert scaled(0.0, value).tolist() == [0, 0, 0]
