import numpy as np
import pytest

from agentdistill.errors import UserError
from agentdistill.signals import SIGNALS
from tests.signals.batches import Batch


def test_on_rollouts_of_the_present_student_it_is_opd():
    table = Batch.random(0).table()
    table = table.with_column("recomputed", table["logprob"])
    np.testing.assert_array_equal(SIGNALS.resolve("lightning")(table), SIGNALS.resolve("opd")(table))


def test_it_follows_the_student_away_from_the_policy_that_sampled(make_table):
    table = make_table([[2]], logprob=[-3.0, -3.0], teacher=[-1.0, -2.0], recomputed=[-1.0, -0.5])
    assert SIGNALS.resolve("lightning")(table).tolist() == [0, 0, 0.0, -1.5]


def test_student_log_probs_of_the_present_are_asked_for_by_name(make_table):
    with pytest.raises(UserError, match="no column 'recomputed'; it comes from the trainer's recomputation"):
        SIGNALS.resolve("lightning")(make_table([[1]], logprob=[-1], teacher=[-1]))
