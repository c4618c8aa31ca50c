import pytest

from agentdistill.curricula import Cut, load
from agentdistill.errors import UserError


def test_f2b_depth_by_iteration():
    schedule = load({"kind": "tcod-f2b", "start": 1, "every": 2})
    assert [schedule.cut(n, 9, 4).max_turns for n in range(1, 10)] == [1, 2, 2, 3, 3, 4, 4, 4, 4]
    assert schedule.cut(6, None, 30) == Cut(4, 0)
    assert not schedule.needs_expert


def test_f2b_start_above_the_turn_limit_is_cut_to_it():
    assert load({"kind": "tcod-f2b", "start": 8, "every": 1}).cut(1, None, 5) == Cut(5, 0)


def test_b2f_prefix_shrinks_and_the_student_plays_to_the_turn_limit():
    schedule = load({"kind": "tcod-b2f", "every": 2})
    assert [schedule.cut(n, 4, 30) for n in range(1, 9)] == [Cut(30, p) for p in (3, 2, 2, 1, 1, 0, 0, 0)]
    assert schedule.needs_expert


@pytest.mark.parametrize(("length", "prefix"), [(None, 0), (0, 0), (1, 0), (2, 1)])
def test_b2f_without_an_expert_or_with_a_short_one_starts_at_reset(length, prefix):
    assert load({"kind": "tcod-b2f", "every": 4}).cut(1, length, 30).prefix_turns == prefix


def test_b2f_prefix_leaves_the_student_a_turn_when_the_expert_is_longer_than_the_limit():
    assert load("tcod-b2f").cut(1, 50, 10) == Cut(10, 9)


def test_no_schedule_plays_to_the_turn_limit_from_the_first_iteration():
    schedule = load("none")
    schedule.observe([0.1], 1)
    assert schedule.cut(1, 5, 12) == Cut(12, 0)
    assert schedule.state() == {}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tcod-f2f", "unknown schedule 'tcod-f2f'; did you mean 'tcod-"),
        ({"kind": "tcod-f2b", "evry": 2}, "schedule 'tcod-f2b' has no parameter 'evry'; did you mean 'every'"),
        (
            {"kind": "tcod-b2f", "every": 0},
            "schedule 'tcod-b2f': parameter 'every' must be greater than 0, not 0",
        ),
        ({"kind": "tcod-b2f", "start": 1}, "schedule 'tcod-b2f' has no parameter 'start'"),
    ],
)
def test_bad_schedules_are_refused_in_one_sentence(spec, message):
    with pytest.raises(UserError) as caught:
        load(spec)
    assert str(caught.value).startswith(message)


def test_a_truth_value_is_no_depth() -> None:
    with pytest.raises(UserError, match="must be a number, not true"):
        load({"kind": "tcod-f2b", "every": True})
