import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentdistill.errors import UserError
from agentdistill.signals import SIGNALS
from tests.signals.batches import Batch

SEEDS = st.integers(0, 10_000)


@given(seed=SEEDS, lam=st.floats(0, 3))
def test_signal_is_the_formula_of_the_paper_on_every_student_token(seed, lam):
    table = Batch.random(seed).table()
    signal = SIGNALS.resolve({"kind": "g-opd", "lam": lam})(table)
    for i in range(len(table)):
        p, t, r = (float(table[name][i]) for name in ("logprob", "teacher", "reference"))
        expected = r - p + lam * (t - r) if table.is_action[i] else 0.0
        assert signal[i] == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(seed=SEEDS)
def test_at_one_it_is_opd_to_the_bit_whatever_the_reference(seed):
    table = Batch.random(seed).table()
    other = table.with_column("reference", table["entropy"] - 7.0)
    plain = SIGNALS.resolve("opd")(table)
    for each in (table, other):
        np.testing.assert_array_equal(SIGNALS.resolve({"kind": "g-opd", "lam": 1})(each), plain)


def test_the_default_is_exopd_which_goes_on_past_the_teacher(make_table):
    table = make_table([[1]], logprob=[-1.0], teacher=[-0.5], reference=[-1.5])
    choice = SIGNALS.resolve("g-opd")
    assert choice.params == {"lam": 1.25}
    assert choice(table)[-1] == pytest.approx(-1.5 + 1.0 + 1.25 * 1.0)


@pytest.mark.parametrize("lam", [0.0, 1.0, 1.25])
def test_missing_reference_is_an_error_and_never_taken_for_one(make_table, lam):
    choice = SIGNALS.resolve({"kind": "g-opd", "lam": lam})
    assert choice.needs == {"teacher", "reference"}
    with pytest.raises(UserError, match="no column 'reference'; it comes from a reference model"):
        choice(make_table([[1]], logprob=[-1], teacher=[-1]))
