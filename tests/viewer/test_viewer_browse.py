"""Finding trajectories: the list, its filters, the search, the keyboard, links and themes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from urllib.parse import quote

import pytest

from agentdistill.trajectory import Trajectory
from tests.viewer.conftest import Stored

END = "\ue010"  # keys, as WebDriver has them
ESCAPE, LEFT, RIGHT, UP, DOWN, ENTER = "\ue00c", "\ue012", "\ue014", "\ue013", "\ue015", "\ue007"


def kept(stored: Stored, keep: Callable[[str, Trajectory], bool]) -> list[int]:
    return [place for place, (batch, item) in enumerate(stored.items) if keep(batch, item)]


def ratio(item: Trajectory, scorer: str) -> float:
    """Mean log π − log T of a trajectory's student tokens; −∞ where there is none."""
    ours = [value for turn in item.turns if turn.author == "student" for value in turn.logprobs_t1]
    if scorer not in item.scores:
        return -math.inf
    gaps = [a - b for a, b in zip(ours, item.scores[scorer].logprobs.tolist(), strict=True) if math.isfinite(a - b)]
    return sum(gaps) / len(gaps) if gaps else -math.inf


def errors(item: Trajectory) -> int:
    return sum(not call.ok for turn in item.turns for call in turn.tool_calls)


def test_the_page_opens_with_every_trajectory_in_the_order_of_play(viewer, stored: Stored):
    assert viewer.listed() == list(range(len(stored.items)))
    assert viewer.text("#count") == f"{len(stored.items)} trajectories"
    assert viewer.text("h1") == "a run"
    batches = [batch for batch, _ in stored.items]
    assert batches.index("eval-before") < batches.index("iter-000001") < batches.index("eval-after")
    won = sum(item.success for _, item in stored.items)
    assert f"{won} succeeded" in viewer.text(".overview")


FILTERS = {
    "success": [("true", lambda batch, item: item.success), ("false", lambda batch, item: not item.success)],
    "stop": [
        (name, lambda batch, item, name=name: item.stop_reason == name)
        for name in ("terminated", "max_turns", "depth", "truncated")
    ],
    "type": [("hard", lambda batch, item: item.task_type == "hard"), ("guess", lambda batch, item: "guess" in item.task_id)],
    "env": [("lab/ViewedUnits-v0", lambda batch, item: item.env_id == "lab/ViewedUnits-v0")],
    "batch": [
        ("training", lambda batch, item: batch.startswith("iter-")), ("eval-after", lambda batch, item: batch == "eval-after"),
    ],
    "tools": [
        ("some", lambda batch, item: errors(item) > 0), ("none", lambda batch, item: errors(item) == 0),
    ],
}  # fmt: skip


@pytest.mark.parametrize("control", FILTERS)
def test_a_filter_keeps_what_it_says(viewer, stored: Stored, control: str):
    for value, keep in FILTERS[control]:
        viewer.choose(control, value)
        expected = kept(stored, keep)
        assert 0 < len(expected) < len(stored.items)
        assert viewer.listed() == expected
        assert viewer.text("#count") == f"{len(expected)} of {len(stored.items)} trajectories"
    viewer.find("#clear").click()
    assert len(viewer.listed()) == len(stored.items)


def test_filters_combine_and_iterations_have_bounds(viewer, stored: Stored):
    viewer.type("from", "2")
    assert viewer.listed() == kept(stored, lambda batch, _: batch in ("iter-000002", "iter-000003"))
    viewer.type("to", "2")
    assert viewer.listed() == kept(stored, lambda batch, _: batch == "iter-000002")
    viewer.choose("stop", "depth")
    second = kept(stored, lambda batch, item: batch == "iter-000002" and item.stop_reason == "depth")
    assert second
    assert viewer.listed() == second


@pytest.mark.parametrize("scorer", ["other", "student"])
def test_the_highest_kl_is_the_chosen_scorers(viewer, stored: Stored, scorer: str):
    names = viewer.texts("#scorer option")
    viewer.choose("scorer", str(names.index(scorer)))
    viewer.choose("kl", "0.1")
    values = sorted((ratio(item, scorer) for _, item in stored.items if ratio(item, scorer) > -math.inf), reverse=True)
    bound = values[math.ceil(len(values) * 0.1) - 1]
    expected = kept(stored, lambda _, item: ratio(item, scorer) >= bound)
    assert viewer.listed() == expected
    viewer.choose("sort", "kl")
    assert viewer.listed() == sorted(expected, key=lambda place: -round(ratio(stored.items[place][1], scorer), 5))


def test_the_list_is_sorted_by_length_and_by_tool_errors(viewer, stored: Stored):
    viewer.choose("sort", "turns")
    assert viewer.listed() == sorted(range(len(stored.items)), key=lambda place: -len(stored.items[place][1].turns))
    viewer.choose("sort", "errors")
    assert viewer.listed()[0] == stored.place("ViewedUnits-v0/0001")


def said(item: Trajectory) -> str:
    """What a search has to look through, as far as these tests ask."""
    parts = [item.id, item.task_id, *(message["content"] for message in item.messages)]
    for turn in item.turns:
        parts += [turn.action, turn.observation]
        parts += [text for call in turn.tool_calls for text in (call.name, json.dumps(call.arguments), call.result)]
    return "\n".join(parts).lower()


WORDS = [["higher"], ["HIGHER", "lower"], ['"never negative"'], ["boxed{3000"], ['": -3}"'], ["no such words"]]


@pytest.mark.parametrize("words", WORDS)
def test_a_search_finds_every_text_and_nothing_else(viewer, stored: Stored, words: list[str]):
    viewer.type("q", " ".join(words))
    expected = kept(stored, lambda _, item: all(word.strip('"').lower() in said(item) for word in words))
    assert viewer.searched() == expected


def test_what_was_searched_is_marked_in_the_text(viewer, stored: Stored):
    viewer.type("q", '"never negative"')
    (place,) = viewer.searched()
    viewer.find(f"#row-{place}").click()
    marked = viewer.wait(lambda: viewer.js("return [...(CSS.highlights.get('found') ?? [])].map(String)"))
    assert marked
    assert set(marked) == {"never negative"}


def test_the_keyboard_goes_through_trajectories_turns_and_tokens(viewer, stored: Stored):
    first, second = (item for _, item in stored.items[:2])
    viewer.press("j")
    viewer.wait(lambda: viewer.shown() == first.id)
    viewer.press("j")
    viewer.wait(lambda: viewer.shown() == second.id)
    viewer.press("k")
    viewer.wait(lambda: viewer.shown() == first.id)
    viewer.press("n", "n")
    assert viewer.text(".turn.current .number") == "Turn 2"
    viewer.press("p")
    assert viewer.text(".turn.current .number") == "Turn 1"
    viewer.js("document.querySelector('#turn-0 .tokens').focus()")
    viewer.press(RIGHT, RIGHT)
    assert "turn 1, token 2" in viewer.find("#hover").text
    viewer.press(LEFT)
    assert "turn 1, token 1" in viewer.find("#hover").text
    assert "student" in viewer.text("#said")
    viewer.press(END)
    assert f"token {len(first.turns[0].action_ids)}" in viewer.find("#hover").text


def test_the_keyboard_searches_and_changes_scorer_and_colour(viewer):
    viewer.press("/")
    assert viewer.js("return document.activeElement.id") == "q"
    viewer.press("j")
    assert viewer.js("return document.getElementById('q').value") == "j"
    viewer.press(ESCAPE)
    assert viewer.js("return document.activeElement.id") == "list"
    viewer.press(DOWN)
    assert viewer.wait(viewer.shown)
    scorer, colour = (viewer.js(f"return document.getElementById('{name}').value") for name in ("scorer", "colour"))
    viewer.press("s", "c")
    assert viewer.js("return document.getElementById('scorer').value") != scorer
    assert viewer.js("return document.getElementById('colour').value") != colour
    viewer.press("?")
    assert viewer.js("return document.getElementById('help').open")
    viewer.press(ESCAPE)
    assert not viewer.js("return document.getElementById('help').open")


def test_a_link_leads_to_the_trajectory_turn_scorer_colour_and_filters(viewer, stored: Stored):
    item = stored.get("ViewedUnits-v0/0001")
    viewer.open(f"trajectory={quote(item.id)}&turn=3&scorer=other&colour=entropy&tools=some&q=negative")
    assert viewer.shown() == item.id
    assert viewer.text(".turn.current .number") == "Turn 3"
    assert viewer.js("return document.getElementById('scorer').selectedOptions[0].textContent") == "other"
    assert viewer.js("return document.getElementById('colour').value") == "entropy"
    assert viewer.searched() == [stored.place(item.id)]
    assert viewer.js("return document.getElementById('q').value") == "negative"


def test_the_address_follows_the_reader_and_the_way_back_leads_back(viewer, stored: Stored):
    viewer.press("j")
    viewer.wait(viewer.shown)
    viewer.find("#row-3").click()
    viewer.wait(lambda: viewer.shown() == stored.items[3][1].id)
    viewer.press("n")
    viewer.choose("colour", "student")
    address = viewer.browser.current_url
    assert "turn=1" in address
    assert "colour=student" in address
    viewer.open(address.partition("#")[2])
    assert viewer.shown() == stored.items[3][1].id
    viewer.find("#row-5").click()
    viewer.wait(lambda: viewer.shown() == stored.items[5][1].id)
    viewer.browser.back()
    viewer.wait(lambda: viewer.shown() == stored.items[3][1].id)


def test_a_link_to_what_is_not_there_opens_the_overview(viewer):
    viewer.open("trajectory=nobody&turn=NaN&scorer=x&colour=constructor&kl=9e9")
    assert viewer.shown() == ""
    assert "trajectories" in viewer.text(".overview h2")
    assert viewer.js("return document.getElementById('colour').value") == "divergence"


def test_both_themes_and_the_choice_lasts(viewer):
    def luminance() -> float:
        channels = viewer.js("return getComputedStyle(document.body).backgroundColor").strip("rgba()").split(",")[:3]
        return sum(float(channel) for channel in channels) / 3

    def dark_first(value: str) -> None:
        viewer.browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": value}]}
        )

    dark_first("light")
    assert luminance() > 200
    dark_first("dark")
    assert luminance() < 60
    viewer.press("t")
    assert luminance() > 200
    viewer.open()
    assert luminance() > 200
    viewer.find("#theme").click()
    assert luminance() < 60
    dark_first("")


def test_a_narrow_window_shows_the_list_or_the_trajectory(viewer, stored: Stored):
    viewer.browser.set_window_size(500, 900)
    assert viewer.find("#list").is_displayed()
    assert not viewer.find("#detail").is_displayed()
    viewer.find("#row-2").click()
    viewer.wait(lambda: viewer.shown() == stored.items[2][1].id)
    assert viewer.find("#detail").is_displayed()
    assert not viewer.find("#list").is_displayed()
    assert viewer.js("return document.documentElement.scrollWidth <= innerWidth")
    viewer.find("#to-list").click()
    assert viewer.find("#list").is_displayed()
