import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentdistill.errors import UserError
from agentdistill.signals.provenance import Provenance, provenance
from tests.signals.conftest import build

SHARED, TEACHER, STUDENT, BOOSTED = Provenance
chance = st.floats(0.001, 1.0)


def classes(*steps, **bounds):
    """The classes of steps of one token each, given as probabilities (T, S, D)."""
    t, s, d = (np.log(side) for side in zip(*steps, strict=True))
    return [Provenance(c) for c in provenance(build([[1] * len(steps)], teacher=t, student=s, distilled=d), **bounds)]


@pytest.mark.parametrize(
    ("t", "s", "d", "expected"),
    [
        (0.50, 0.45, 0.52, SHARED),
        (0.90, 0.10, 0.80, TEACHER),
        (0.10, 0.90, 0.20, STUDENT),
        (0.20, 0.20, 0.80, BOOSTED),
        (0.30, 0.35, 0.50, BOOSTED),
        (0.90, 0.10, 0.10, TEACHER),  # what the distilled student says decides between shared and boosted only
    ],
)
def test_worked_steps(t, s, d, expected):
    assert classes((t, s, d)) == [expected]


@given(
    steps=st.lists(st.tuples(chance, chance, chance), min_size=1, max_size=6), alpha=st.floats(0, 0.5), beta=st.floats(0, 0.5)
)
def test_rules_are_tried_in_order_so_that_each_step_has_exactly_one_class(steps, alpha, beta):
    expected = []
    for t, s, d in ([math.exp(math.log(p)) for p in step] for step in steps):
        if abs(t - s) <= alpha and abs(t - d) <= alpha and abs(s - d) <= alpha:
            expected.append(SHARED)
        elif t - s > beta:
            expected.append(TEACHER)
        elif s - t > beta:
            expected.append(STUDENT)
        else:
            expected.append(BOOSTED)
    assert classes(*steps, alpha=alpha, beta=beta) == expected


@given(steps=st.lists(st.tuples(chance, chance), min_size=1, max_size=6), beta=st.floats(0, 0.5))
def test_equal_teacher_and_student_leave_nothing_to_either(steps, beta):
    found = classes(*((p, p, d) for p, d in steps), beta=beta)
    assert set(found) <= {SHARED, BOOSTED}


@given(steps=st.lists(st.tuples(chance, chance, chance), min_size=1, max_size=6))
def test_exchanged_teacher_and_student_exchange_their_classes(steps):
    other = {SHARED: SHARED, TEACHER: STUDENT, STUDENT: TEACHER, BOOSTED: BOOSTED}
    assert classes(*((s, t, d) for t, s, d in steps)) == [other[c] for c in classes(*steps)]


def test_a_steps_probability_is_the_geometric_mean_of_its_tokens():
    # T: √(0.9·0.4) = 0.6; S: √(0.64·0.36) = 0.48, where the plain means are 0.65 and 0.5.
    tokens = {"teacher": [0.9, 0.4], "student": [0.64, 0.36], "distilled": [0.6, 0.6]}
    table = build([[2]], **{name: np.log(values) for name, values in tokens.items()})
    assert provenance(table, alpha=0.0, beta=0.13).tolist() == [BOOSTED]
    assert provenance(table, alpha=0.0, beta=0.11).tolist() == [TEACHER]


def test_columns_are_named_and_steps_come_in_the_tables_order():
    table = build([[1, 2], [1]], a=np.log([0.9, 0.1, 0.1, 0.5]), b=np.log([0.1, 0.9, 0.9, 0.5]), c=np.log([0.5] * 4))
    assert provenance(table, teacher="a", student="b", distilled="c").tolist() == [TEACHER, STUDENT, SHARED]


def test_missing_scores_infinite_ones_and_negative_bounds_are_errors():
    table = build([[1]], teacher=[-1.0], student=[-np.inf])
    with pytest.raises(UserError, match=r"'student' is -inf at row 2"):
        provenance(table)
    with pytest.raises(UserError, match="no column 'distilled'"):
        provenance(build([[1]], teacher=[-1.0], student=[-1.0]))
    with pytest.raises(UserError, match=r"beta is -0\.1; it must be at least 0"):
        provenance(table, beta=-0.1)
