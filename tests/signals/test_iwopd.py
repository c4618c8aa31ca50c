import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentdistill.signals import SIGNALS
from tests.signals.batches import Batch


@given(seed=st.integers(0, 10_000), gamma=st.floats(0, 2))
def test_signal_equals_a_plain_loop_over_each_trajectory(seed, gamma):
    table = Batch.random(seed).table()
    signal = SIGNALS.resolve({"kind": "iw-opd", "gamma": gamma})(table)
    for trajectory in range(table.n_trajectories):
        rows = [i for i in range(len(table)) if table.trajectory[i] == trajectory and table.is_action[i]]
        ratio = [float(table["teacher"][i] - table["logprob"][i]) for i in rows]
        for place, i in enumerate(rows):
            share = sum(map(abs, ratio[:place])) / sum(map(abs, ratio))
            assert signal[i] == pytest.approx((1 + gamma * (1 - share)) * ratio[place], rel=1e-9)
    assert (signal[~table.is_action] == 0).all()


def test_the_first_token_weighs_one_and_a_half_and_the_weight_falls(make_table):
    table = make_table([[2, 2]], logprob=[-1.0] * 4, teacher=[-3.0, -1.0, 0.0, -2.0])
    weight = SIGNALS.resolve("iw-opd")(table)[table.is_action] / np.array([-2.0, 1.0, 1.0, -1.0])
    assert weight[[0, 2, 3]].tolist() == [1.5, 1.25, 1.125]


def test_scaling_all_log_ratios_scales_the_signal(make_table):
    ratio = np.array([0.5, -2.0, 0.25, 1.0])
    once, thrice = (
        SIGNALS.resolve("iw-opd")(make_table([[2], [2]], logprob=[-9.0] * 4, teacher=-9.0 + c * ratio)) for c in (1, 3)
    )
    np.testing.assert_allclose(thrice, 3 * once, rtol=1e-12)


def test_without_gamma_it_is_opd_and_agreement_throughout_gives_zero_without_a_division(make_table):
    table = Batch.random(4).table()
    np.testing.assert_array_equal(SIGNALS.resolve({"kind": "iw-opd", "gamma": 0})(table), SIGNALS.resolve("opd")(table))
    agreed = make_table([[2], [1]], logprob=[-1.0] * 3, teacher=[-1.0] * 3)
    with np.errstate(all="raise"):
        assert (SIGNALS.resolve("iw-opd")(agreed) == 0).all()
