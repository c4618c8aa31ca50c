"""Which rank a process is."""

from __future__ import annotations

import pytest

from agentdistill.cluster.rank import Rank, speaks
from agentdistill.errors import UserError

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "here"}


def test_torchruns_variables_say_which_rank_this_is() -> None:
    assert Rank.here(TORCHRUN) == Rank(3, 4, 1)
    assert not speaks(TORCHRUN)
    assert speaks(TORCHRUN | {"RANK": "0"})


@pytest.mark.parametrize("environ", [{}, {"RANK": "1"}, TORCHRUN | {"RANK": "0", "WORLD_SIZE": "1"}])
def test_a_process_alone_is_no_rank(environ: dict[str, str]) -> None:
    assert Rank.here(environ) is None
    assert speaks(environ)


def test_a_rank_that_is_no_number_is_refused() -> None:
    with pytest.raises(UserError, match="one of them is no number"):
        Rank.here(TORCHRUN | {"RANK": "first"})
