"""The hint that names what was meant."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentdistill.errors import nearest

NAMES = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=20, unique=True)


def test_a_close_name_is_suggested_and_otherwise_all_are_listed() -> None:
    assert nearest("trian", ["train", "eval"]) == "; did you mean 'train'?"
    assert nearest("zzz", ["train", "eval"]) == "; known: eval, train"
    assert nearest("zzz", []) == ""
    assert nearest("zzz", ["a", "a"]) == "; known: a"
    assert nearest("iter-00001", [f"iter-{i:06d}" for i in range(1, 21)]) == "; did you mean 'iter-000001'?"
    assert nearest(5, ["5a"]) == "; did you mean '5a'?"  # what somebody wrote for a name may be anything
    assert nearest("zzz", [f"n{i:02d}" for i in range(20)]).endswith("n11 …")


def test_a_name_in_the_wrong_case_is_still_recognised() -> None:
    assert nearest("SOD", ["gkd", "sod"]) == "; did you mean 'sod'?"
    assert nearest("alfworld-V0", ["ALFWorld-v0", "WebShop-v0"]) == "; did you mean 'ALFWorld-v0'?"
    assert nearest("Sod", ["SOD", "sod"]) == "; did you mean 'sod'?"  # the closer of the two


@given(NAMES)
def test_a_known_name_is_nearest_to_itself(names: list[str]) -> None:
    assert nearest(names[0], names) == f"; did you mean '{names[0]}'?"
