import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentdistill.errors import UserError
from agentdistill.signals.dasd import choose, teacher_steps
from agentdistill.signals.provenance import Provenance, provenance
from agentdistill.trajectory import Scores, StopReason, Trajectory, Turn
from tests.signals.conftest import build

NAMES = {"teacher": "big@1", "student": "small@2"}


def candidate(name, task, t, s, lengths=None, env="lab/A-v0"):
    """A trajectory whose tokens have these probabilities under teacher and student, one token a turn by default."""
    lengths = [1] * len(t) if lengths is None else lengths
    turns = [Turn([1, 2], [3] * n, "x", "y", [-1.0] * n, [-1.0] * n) for n in lengths]
    scores = {"big@1": Scores(np.log(t)), "small@2": Scores(np.log(s))}
    return Trajectory(name, env, 0, task, [], turns, StopReason.TERMINATED, scores=scores)


def test_the_candidate_with_the_most_steps_that_only_the_teacher_would_say_is_chosen():
    few = candidate("few", "a", [0.9, 0.5, 0.5], [0.1, 0.5, 0.5])
    many = candidate("many", "a", [0.5, 0.5, 0.2], [0.3, 0.3, 0.9])
    alone = candidate("alone", "b", [0.1], [0.9])
    assert teacher_steps([few, many, alone], **NAMES).tolist() == [1, 2, 0]
    assert [t.id for t in choose([few, many, alone], **NAMES)] == ["many", "alone"]
    assert [t.id for t in choose([few, many, alone], **NAMES, beta=0.3)] == ["few", "alone"]


def test_of_equal_counts_the_earlier_wins_and_tasks_of_two_environments_are_two():
    first, second = (candidate(name, "a", [0.9], [0.1]) for name in ("first", "second"))
    other = candidate("other", "a", [0.9], [0.1], env="lab/B-v0")
    assert [t.id for t in choose([first, other, second], **NAMES)] == ["first", "other"]
    assert choose([], **NAMES) == []


def test_tokens_of_one_step_are_counted_once():
    assert teacher_steps([candidate("x", "a", [0.9, 0.8, 0.1], [0.2, 0.2, 0.1], [2, 1])], **NAMES).tolist() == [1]


@given(
    steps=st.lists(st.tuples(*[st.floats(0.01, 1.0)] * 3), min_size=1, max_size=6),
    beta=st.floats(0, 0.5),
    share=st.floats(0, 1),
)
def test_count_is_that_of_the_teachers_provenance_whatever_the_distilled_student_says(steps, beta, share):
    t, s, d = zip(*steps, strict=True)
    table = build([[1] * len(steps)], teacher=np.log(t), student=np.log(s), distilled=np.log(d))
    found = provenance(table, alpha=share * beta, beta=beta)
    count = int(teacher_steps([candidate("x", "a", t, s)], **NAMES, beta=beta)[0])
    assert count == (found == Provenance.TEACHER).sum()


def test_missing_scorers_and_scores_of_another_length_are_errors():
    trajectory = candidate("x", "a", [0.9, 0.9], [0.1, 0.1])
    with pytest.raises(UserError, match="trajectory 'x' has no scores by 'smal@2'; did you mean 'small@2'"):
        teacher_steps([trajectory], teacher="big@1", student="smal@2")
    for short in ([], [-1.0]):
        trajectory.scores["big@1"] = Scores(np.array(short))
        with pytest.raises(UserError, match=f"has 2 student tokens and {len(short)} scores by 'big@1'"):
            teacher_steps([trajectory], **NAMES)
    trajectory.scores["big@1"] = Scores(np.array([-1.0, -np.inf]))
    with pytest.raises(UserError, match="'teacher' is -inf"):
        teacher_steps([trajectory], **NAMES)
