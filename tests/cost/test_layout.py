"""Who does what in an experiment."""

from __future__ import annotations

import pytest

import agentdistill as ad
from agentdistill.cost.layout import Layout, layout_of
from agentdistill.errors import UserError
from tests.needs import needs
from tests.training.test_run import BASE


def test_one_process_does_all_unless_ranks_are_asked_for() -> None:
    config = ad.experiment(BASE)
    assert (layout_of(config).ranked, layout_of(config).by_ray) == (False, False)
    assert layout_of(config, 3).ranks == 3
    assert layout_of(config, 3).ranked


def test_rays_actors_are_those_of_the_experiment() -> None:
    needs("ray")
    config = ad.experiment(BASE, {"engine": {"kind": "ray", "ray": {"samplers": 3, "trainers": 2, "gpus_per_sampler": 0.5}}})
    found = layout_of(config)
    assert (found.samplers, found.scorers, found.ranks, found.apart, found.environments) == (3, 1, 2, True, 0)
    assert dict(found.gpus)["sampler"] == 0.5
    with pytest.raises(UserError, match=r"set engine\.ray\.trainers to 4"):
        layout_of(config, 4)
    alone = layout_of(ad.experiment(BASE, {"engine": {"kind": "ray", "ray": {"teachers": 0}}}))
    assert alone == Layout(samplers=1, gpus=alone.gpus)


@pytest.mark.parametrize("ranks", [0, -1, 5000])
def test_a_number_of_ranks_that_cannot_be_is_refused(ranks: int) -> None:
    with pytest.raises(UserError, match=f"not {ranks}"):
        layout_of(ad.experiment(BASE), ranks)
