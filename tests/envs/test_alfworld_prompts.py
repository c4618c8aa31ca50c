from __future__ import annotations

from typing import Any

import pytest

from agentdistill.envs.alfworld.prompts import INSTRUCTIONS, PROMPTS, command_of, load_prompt, well_formed
from agentdistill.envs.alfworld.rewards import PRESETS, load_preset, load_reward
from agentdistill.errors import UserError

COMMANDS = ["go to desk 1", "look"]


@pytest.mark.parametrize(
    ("message", "command"),
    [
        ("<think>a <action>look</action>?</think><action> Go to desk 1\n</action>", "go to desk 1"),
        ("<action>look <action>inventory</action>", "inventory"),
        ("  look \n", "look"),
        ("<action>look", "<action>look"),
        ("</action>look", "</action>look"),
        ("<action></action>", ""),
    ],
)
def test_the_command_is_in_the_last_action_tags_or_the_whole_message(message: str, command: str) -> None:
    assert command_of(message) == command


@pytest.mark.parametrize(
    ("message", "well"),
    [
        ("<think>\nSo.\n</think>\n<action>look</action>", True),
        ("<think></think><action>dance</action>", True),
        ("<action>look</action>", False),
        ("<think>So.</think>look", False),
        ("<action>look</action><think>So.</think>", False),
        ("<think>So.<action>look</action>", False),
        ("<think>看</think><action>look</action>", False),
    ],
)
def test_a_well_formed_message_thinks_and_then_acts(message: str, well: bool) -> None:
    assert well_formed(message) is well


def test_tcods_prompt_instructs_once_and_lists_commands_each_time() -> None:
    prompt = PROMPTS["tcod"]
    first = prompt.show("A room.", "rest", COMMANDS, first=True)
    assert first == f"A room.\n\n{INSTRUCTIONS}\n\nAdmissible commands: go to desk 1, look."
    assert prompt.show("A desk.", "rest", COMMANDS, first=False) == "A desk.\n\nAdmissible commands: go to desk 1, look."
    assert prompt.show("A desk.", "rest", None, first=False) == "A desk."


def test_verl_agents_prompt_stands_alone_in_every_turn() -> None:
    prompt = PROMPTS["verl-agent"]
    for first in (True, False):
        text = prompt.show("A {room}.", "rest", COMMANDS, first=first)
        assert "You see: A {room}.\nThe admissible actions are: ['go to desk 1'\n 'look']." in text
        assert text.endswith("between <action> and </action>.")
    assert "Your task is to: rest." in prompt.show("A desk.", "rest", None, first=False)


def test_a_prompt_can_be_given_by_its_templates() -> None:
    prompt = load_prompt({"first": "{goal}! {observation}{listing}", "later": "{{}}{observation}", "listing": " [{commands}]"})
    assert prompt.show("A room.", "rest", COMMANDS, first=True) == "rest! A room. [go to desk 1, look]"
    assert prompt.show("A desk.", "rest", COMMANDS, first=False) == "{}A desk."


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tcot", "no prompt 'tcot'; did you mean 'tcod'"),
        ({"first": "x"}, "template 'later': field required"),
        ({"first": "x", "later": "y", "litsing": "z"}, "template 'litsing': .*did you mean 'listing'"),
        (
            {"first": "{task}", "later": "y"},
            r"template 'first' cannot be filled in \('task'\); it may hold {observation}, {goal}",
        ),
        ({"first": "{", "later": "y"}, "template 'first' cannot be filled in"),
        ({"first": "{goal.x}", "later": "y"}, "template 'first' cannot be filled in"),
        ({"first": "x", "later": "{}"}, "template 'later' cannot be filled in"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(spec: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_prompt(spec)


def test_rewards_are_the_published_ones() -> None:
    assert [load_reward("binary")(won, formed) for won in (False, True) for formed in (False, True)] == [0, 0, 1, 1]
    assert [load_reward("verl-agent")(won, formed) for won in (False, True) for formed in (False, True)] == [-0.1, 0, 9.9, 10]
    assert load_reward({"won": 2, "malformed": -1})(True, False) == 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("binari", "no reward 'binari'; did you mean 'binary'"),
        ({"malforned": 1}, "value 'malforned': .*did you mean 'malformed'"),
        ({"won": "much"}, "value 'won': .*valid number"),
        ({"won": float("nan")}, "value 'won': .*finite"),
    ],
)
def test_rewards_that_do_not_fit_are_refused(spec: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_reward(spec)


def test_presets_name_prompts_and_rewards_that_there_are() -> None:
    for preset in PRESETS.values():
        load_prompt(preset.prompt)
        load_reward(preset.reward)
    assert (load_preset("tcod").max_turns, load_preset("verl-agent").max_turns) == (30, 50)
    with pytest.raises(UserError, match="no preset 'verlagent'; did you mean 'verl-agent'"):
        load_preset("verlagent")


def test_a_message_of_many_tags_takes_steps_in_proportion_to_its_length():
    assert not well_formed("<think></think>" * 60_000)
    assert not well_formed("<think>" * 100_000)
    assert well_formed("</think><think>" * 9 + "</think><action></action>")
