"""Gradients held against each other."""

from __future__ import annotations

import pytest
import torch

from agentdistill.training.aside import Aside


def test_squares_are_of_what_stands_there_less_what_stood_there() -> None:
    parameters = [torch.zeros(2, requires_grad=True), torch.zeros(1, requires_grad=True)]
    aside = Aside(parameters)
    assert aside.difference() == 0
    parameters[0].grad = torch.tensor([3.0, 4.0])
    assert aside.difference() == pytest.approx(25)
    assert aside.take() == pytest.approx(25)
    assert parameters[0].grad is None
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 6.0]), torch.tensor([1.0])
    assert aside.difference() == pytest.approx(4 + 1)
    aside.forget()
    assert aside.difference() == pytest.approx(9 + 36 + 1)
