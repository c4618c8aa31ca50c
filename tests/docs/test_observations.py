"""What pages show of an episode's beginning is what the environment really answers."""

from __future__ import annotations

import json

import pytest

from tests.docs.pages import sitegen
from tests.needs import needs_environment

sitegen()
from sitegen.observations import FOLDER, SHOWN, record  # noqa: E402


@pytest.mark.parametrize("name", SHOWN)
def test_the_recorded_beginning_of_an_episode_is_the_present_one(name):
    env_id, options = SHOWN[name]
    needs_environment(env_id)
    assert json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")) == record(env_id, options)
