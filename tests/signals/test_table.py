import numpy as np
import pytest

from agentdistill.errors import UserError
from agentdistill.signals import TokenTable

GOOD = {"trajectory": [0, 0, 1], "turn": [0, 0, 0], "step": [-1, 0, 0], "is_action": [False, True, True]}


def test_missing_required_column_is_named():
    with pytest.raises(UserError, match="no column 'step'"):
        TokenTable({k: v for k, v in GOOD.items() if k != "step"})


def test_missing_optional_column_says_what_provides_it():
    with pytest.raises(UserError, match=r"no column 'rkl'.*full distribution"):
        TokenTable(GOOD)["rkl"]


def test_column_of_another_length_is_refused_by_name():
    with pytest.raises(UserError, match=r"'logprob' has shape \(2,\).* 3 rows"):
        TokenTable({**GOOD, "logprob": [0.0, 1.0]})


@pytest.mark.parametrize("ids", [[1, 1, 2], [0, 2, 2], [0, 1, 0]])
def test_trajectories_must_count_up_and_be_contiguous(ids):
    with pytest.raises(UserError, match="'trajectory' must count"):
        TokenTable({**GOOD, "trajectory": ids})


def test_step_id_on_a_prompt_token_is_refused():
    with pytest.raises(UserError, match="row 0"):
        TokenTable({**GOOD, "step": [0, 0, 0]})


def test_fractional_integers_are_refused():
    with pytest.raises(UserError, match="'turn' must hold int64"):
        TokenTable({**GOOD, "turn": [0, 0.5, 1]})


def test_columns_cannot_be_changed_in_place():
    table = TokenTable({**GOOD, "logprob": [0.0, 1.0, 2.0]})
    with pytest.raises(ValueError, match="read-only"):
        table["logprob"][0] = 9


def test_with_column_leaves_the_original_alone():
    table = TokenTable(GOOD)
    more = table.with_column("rkl", [0.0, 1.0, 2.0])
    assert "rkl" in more
    assert "rkl" not in table


def test_nan_on_a_student_token_names_trajectory_turn_and_row(make_table):
    table = make_table([[1], [1, 2]], teacher=[-1, -1, -np.inf, -1])
    with pytest.raises(UserError, match=r"'teacher' is -inf at row 8 \(trajectory 1, turn 1\)"):
        table.check_finite("teacher")


def test_nan_on_masked_tokens_never_leaks_into_reductions(make_table):
    table = make_table([[1, 2], [2]], x=[1, 2, 4, 8, 16])
    assert table.sum_by_trajectory(table["x"]).tolist() == [7, 24]
    assert table.mean_by_step(table["x"]).tolist() == [1, 3, 12]
    assert table.on_actions("x").tolist() == [0, 0, 1, 0, 0, 2, 4, 0, 0, 8, 16]
    mean, count = table.mean_by_index("turn", table["x"])
    assert mean.tolist() == [25 / 3, 3]
    assert count.tolist() == [3, 2]


def test_spread_steps_puts_each_value_on_its_own_tokens(make_table):
    table = make_table([[1, 2], [2]])
    assert table.spread_steps([5, 6, 7]).tolist() == [0, 0, 5, 0, 0, 6, 6, 0, 0, 7, 7]


def test_turn_that_nobody_reached_has_nan_mean_and_no_count():
    table = TokenTable({"trajectory": [0, 0], "turn": [0, 2], "step": [0, 1], "is_action": [True, True]})
    mean, count = table.mean_by_index("turn", [1.0, 2.0])
    assert np.isnan(mean[1])
    assert count.tolist() == [1, 0, 1]


def test_value_that_varies_within_a_trajectory_is_refused():
    table = TokenTable({**GOOD, "reward": [1.0, 2.0, 0.0]})
    with pytest.raises(UserError, match=r"'reward' must hold one finite value.*row 1"):
        table.by_trajectory("reward")


def test_tables_without_rows_or_without_student_tokens_reduce_to_nothing():
    empty = TokenTable({"trajectory": [], "turn": [], "step": [], "is_action": []})
    silent = TokenTable({"trajectory": [0, 1], "turn": [0, 0], "step": [-1, -1], "is_action": [False, False]})
    assert empty.n_trajectories == 0
    assert len(empty.mean_by_step(np.zeros(0))) == 0
    assert silent.sum_by_trajectory([np.nan, 1.0]).tolist() == [0, 0]
    assert len(silent.mean_by_step([np.nan, 1.0])) == 0


class Costly:
    """Two columns that take work to fill."""

    names = ("logprob", "entropy")

    def __init__(self, n: int) -> None:
        self.n, self.computed = n, 0

    def compute(self):
        self.computed += 1
        return {"logprob": np.full(self.n, -1.0), "entropy": np.full(self.n, 2.0)}


def pending(later):
    columns = {"trajectory": [0, 0], "turn": [0, 0], "step": [-1, 0], "is_action": [False, True]}
    return TokenTable(columns, later)


def test_pending_columns_are_there_and_computed_together_when_one_is_read():
    later = Costly(2)
    table = pending(later)
    assert "entropy" in table
    assert "logprob" in table.names
    assert table.pending
    assert later.computed == 0
    assert table["entropy"].tolist() == [2, 2]
    assert table["logprob"].tolist() == [-1, -1]
    assert later.computed == 1
    assert not table.pending


def test_pending_columns_can_be_told_instead():
    later = Costly(2)
    table = pending(later)
    table.settle({"logprob": [0.0, -3.0], "entropy": [0.0, 1.0]})
    assert table["logprob"].tolist() == [0, -3]
    assert later.computed == 0
    table.settle({"logprob": [9.0, 9.0], "entropy": [9.0, 9.0]})
    assert table["logprob"].tolist() == [0, -3]  # it was settled


def test_a_table_with_another_column_has_what_was_pending():
    assert pending(Costly(2)).with_column("reward", [1.0, 1.0])["entropy"].tolist() == [2, 2]
