import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentdistill.errors import UserError
from agentdistill.signals import COEFFICIENTS

KDRL = {"kind": "linear", "start": 5e-3, "by": -5e-5, "floor": 1e-3}


@given(st.integers(1, 500))
def test_kdrls_annealing_is_the_formula_of_the_paper(iteration):
    assert COEFFICIENTS.resolve(KDRL)(iteration) == max(5e-3 - 5e-5 * iteration, 1e-3)


def test_kdrls_coefficient_reaches_its_floor_at_iteration_80():
    at = COEFFICIENTS.resolve(KDRL)
    assert at(79) > 1e-3
    assert at(80) == pytest.approx(1e-3)
    assert at(81) == 1e-3


def test_a_coefficient_that_grows_stops_at_its_ceiling():
    at = COEFFICIENTS.resolve({"kind": "linear", "start": 0.0, "by": 0.25, "ceiling": 0.6})
    assert [at(n) for n in (1, 2, 3)] == [0.25, 0.5, 0.6]


def test_a_ceiling_below_the_floor_is_refused():
    with pytest.raises(UserError, match=r"coefficient 'linear': ceiling 0\.5 is below floor 1"):
        COEFFICIENTS.resolve({"kind": "linear", "start": 1, "by": 0, "floor": 1, "ceiling": 0.5})
