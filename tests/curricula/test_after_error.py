import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentdistill.errors import UserError
from agentdistill.signals import STEP_WEIGHTS, TokenTable

drifts = st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, 3.0]), min_size=1, max_size=6)


def weights(kind, *trajectories, **settings):
    """One weight a step: two tokens a step whose log-ratios have the given mean size and opposite signs."""
    rows = {name: [] for name in ("trajectory", "turn", "step", "is_action", "logprob", "teacher")}
    for number, drift in enumerate(trajectories):
        for k, d in enumerate(drift):
            for action, ratio in ((False, float("nan")), (True, 1.5 * d), (True, -0.5 * d)):
                values = (number, k, k if action else -1, action, -1.0 if action else float("nan"), -1.0 + ratio)
                for name, value in zip(rows, values, strict=True):
                    rows[name].append(value)
    per_row = STEP_WEIGHTS.resolve({"kind": kind, **settings})(TokenTable(rows)).reshape(-1, 3)
    assert (per_row[:, 0] == 0).all()
    assert (per_row[:, 1] == per_row[:, 2]).all()
    return per_row[:, 1].tolist()


@given(many=st.lists(drifts, min_size=1, max_size=4), rate=st.floats(0, 1))
def test_weights_equal_a_plain_loop_that_finds_each_trajectorys_first_error(many, rate):
    masked, decayed = [], []
    for drift in many:
        error = next((k for k, d in enumerate(drift) if d > 1.0), len(drift))
        masked += [1.0 if k <= error else 0.0 for k in range(len(drift))]
        decayed += [rate ** max(k - error, 0) for k in range(len(drift))]
    assert weights("mask-after-error", *many) == masked
    assert weights("decay-after-error", *many, rate=rate) == pytest.approx(decayed)


def test_the_error_itself_still_counts_and_later_agreement_mends_nothing():
    drift = [0.1, 2.0, 0.1, 0.1]
    assert weights("mask-after-error", drift) == [1, 1, 0, 0]
    assert weights("decay-after-error", drift) == pytest.approx([1, 1, 0.9, 0.81])


def test_without_an_error_every_step_counts_and_the_threshold_itself_is_none():
    for kind in ("mask-after-error", "decay-after-error"):
        assert weights(kind, [1.0, 1.0, 0.2]) == [1, 1, 1]
        assert weights(kind, [1.0, 1.0, 0.2], threshold=0.9)[2] < 1


def test_missing_step_id_is_an_error():
    rows = {"trajectory": [0, 0], "turn": [0, 0], "step": [0, -1], "is_action": [True, True]}
    table = TokenTable({**rows, "logprob": [-1.0, -1.0], "teacher": [-2.0, -2.0]})
    with pytest.raises(UserError, match=r"row 1 \(trajectory 0, turn 0\) has no step id"):
        STEP_WEIGHTS.resolve("mask-after-error")(table)
