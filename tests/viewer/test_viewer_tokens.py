"""One trajectory: every number that is drawn or hovered over is the stored one, or follows from it."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest

from agentdistill.curricula.sod import sod
from agentdistill.signals.provenance import Provenance, provenance
from agentdistill.signals.table import TokenTable
from agentdistill.trajectory import Trajectory
from agentdistill.viewer.encode import spans
from tests.viewer.conftest import Stored

NATS = (0.05, 0.2, 0.6, 1.5, 4)
TEACHER = "tiny:32x2"
TRAINED = "iter-000002/0001"


def number(text: str) -> float:
    return float(text.replace("−", "-"))


def signed(value: float) -> str:
    level = sum(abs(value) >= bound for bound in NATS)
    return f"{'p' if value > 0 else 'm'}{level}" if level else ""


def on_the_edge(value: float) -> bool:
    """Whether rounding to what the page is given could have moved a value over a bound."""
    return any(abs(abs(value) - bound) < 1e-4 for bound in NATS)


def by_turn(item: Trajectory, values: np.ndarray) -> list[list[float]]:
    return [values[start:end].tolist() for start, end in spans(item)]


def gaps(item: Trajectory, scorer: str) -> list[list[float]]:
    theirs = by_turn(item, item.scores[scorer].logprobs)
    return [[a - b for a, b in zip(turn.logprobs_t1, part, strict=True)] for turn, part in zip(item.turns, theirs, strict=True)]


def table(item: Trajectory, **columns: np.ndarray) -> TokenTable:
    """A trajectory's tokens with further columns, as a method sees them."""
    stream = item.stream()
    where = {"trajectory": np.zeros(len(stream.ids), dtype=int), "turn": stream.turn, "step": stream.step}
    filled = {name: np.full(len(stream.ids), np.nan) for name in columns}
    for name, values in columns.items():
        filled[name][stream.is_action] = values
    return TokenTable({**where, "is_action": stream.is_action, "logprob": stream.logprobs_t1, **filled})


def choose_scorer(viewer, name: str) -> None:
    viewer.choose("scorer", str(viewer.texts("#scorer option").index(name)))


def test_the_teacher_of_the_run_is_the_first_scorer_shown_whoever_was_met_first(viewer):
    assert viewer.js("return document.getElementById('scorer').selectedOptions[0].textContent") == TEACHER
    assert viewer.texts("#scorer option")[0] == "other"  # the store's first batch has no teacher


def test_each_token_is_shaded_by_its_divergence_and_another_scorer_shades_it_anew(viewer, stored: Stored):
    item = stored.get(TRAINED)
    viewer.open(f"trajectory={TRAINED}")
    seen = {}
    for scorer in (TEACHER, "other"):
        choose_scorer(viewer, scorer)
        seen[scorer] = [viewer.shades(k) for k in range(len(item.turns))]
        for shades, values in zip(seen[scorer], gaps(item, scorer), strict=True):
            for shade, value in zip(shades, values, strict=True):
                assert shade == signed(value) or on_the_edge(value)
    assert seen[TEACHER] != seen["other"]
    assert any(shade for turn in seen["other"] for shade in turn)


def test_the_text_of_the_tokens_is_what_the_environment_was_handed(viewer, stored: Stored):
    item = stored.get("ViewedUnits-v0/0001")
    viewer.open(f"trajectory={item.id}")
    for k, turn in enumerate(item.turns):
        assert viewer.text(f"#turn-{k} .tokens") == turn.action + "<|end|>"
        assert viewer.text(f"#turn-{k} .observation pre") == turn.observation
    assert viewer.texts("#detail .call summary b") == ["✗ tool error", "tool"]


def test_hovering_tells_log_probs_entropy_advantage_and_what_the_others_say(viewer, stored: Stored):
    item = stored.get(TRAINED)
    viewer.open(f"trajectory={TRAINED}")
    turn, token = 1, 2
    told = viewer.hover(turn, token)
    ours = item.turns[turn].logprobs_t1[token]
    place = spans(item)[turn][0] + token
    assert f"id {item.turns[turn].action_ids[token]} · turn 2, token 3" in told
    rows = viewer.texts("#hover tr")
    assert number(rows[1].removeprefix("student")) == pytest.approx(ours, abs=6e-4)
    for row, name in zip(rows[2:], (TEACHER, "other", "student"), strict=True):
        theirs = item.scores[name].logprobs[place]
        found = re.match(rf"{re.escape(name)}(−\d+\.\d{{3}})([+−]\d+\.\d{{3}})", row)
        assert found is not None
        assert [number(text) for text in found.groups()] == pytest.approx([theirs, ours - theirs], abs=6e-4)
    entropy = item.scores["other"].entropy
    assert entropy is not None
    assert float(rows[3].partition("entropy ")[2]) == pytest.approx(entropy[place], abs=6e-4)
    assert re.search(r"advantage\n[+−]\d\.\d{3}", told)
    assert re.search(r"SOD weight\n\d\.\d{3}", told)
    assert re.search(r"provenance\n(shared|teacher|student|boosted)", told)
    choose_scorer(viewer, "other")
    told = viewer.hover(turn, token)
    assert item.scores["other"].topk_logprobs is not None
    assert "likeliest" in told
    likeliest = re.search(r"likeliest: “.*?” (−?\d+\.\d\d)", told)
    assert likeliest is not None
    assert number(likeliest[1]) == pytest.approx(item.scores["other"].topk_logprobs[place][0], abs=6e-3)


def test_advantages_are_those_of_the_update(viewer, stored: Stored):
    item = stored.get(TRAINED)
    viewer.open(f"trajectory={TRAINED}")
    shown = []
    for k in range(len(item.turns)):
        for token in (0, 3):
            told = viewer.hover(k, token)
            shown.append(number(re.search(r"advantage\n([+−]\d+\.\d{3})", told)[1]))  # type: ignore[index]
    theirs = item.scores[TEACHER].logprobs
    ours = np.concatenate([turn.logprobs_t1 for turn in item.turns])
    weight = sod(table(item, teacher=theirs), delta=0.5)[item.stream().is_action]
    expected = [part[token] for part in by_turn(item, weight * (theirs - ours)) for token in (0, 3)]
    assert shown == pytest.approx(expected, abs=6e-4)
    assert len(set(shown)) >= 4


def test_kl_by_turn_sod_weights_and_where_it_ended_are_drawn_beside_the_text(viewer, stored: Stored):
    item = stored.get(TRAINED)
    viewer.open(f"trajectory={TRAINED}")
    kl = [float(np.mean(values)) for values in gaps(item, TEACHER)]
    weights = sod(table(item, teacher=item.scores[TEACHER].logprobs), delta=0.5)
    stream = item.stream()
    weight = [float(weights[(stream.turn == k) & stream.is_action][0]) for k in range(len(item.turns))]
    assert len(set(weight)) > 1
    figures = viewer.texts(".turn .figures")
    for k, text in enumerate(figures):
        told_kl, told_weight = re.fullmatch(r"KL (\S+)  w (\S+)", text).groups()  # type: ignore[union-attr]
        assert number(told_kl) == pytest.approx(kl[k], abs=6e-4)
        assert float(told_weight) == pytest.approx(weight[k], abs=6e-3)
    titles = viewer.texts("svg.map .hit title")
    assert len(titles) == len(item.turns)
    assert all(f"Turn {k + 1}" in title and f"weight {weight[k]:.2f}" in title for k, title in enumerate(titles))
    bars = viewer.js(
        "return [...document.querySelectorAll('svg.map .bar')]"
        ".map((e) => [e.classList.contains('plus'), +e.getAttribute('height')])"
    )
    assert [plus for plus, _ in bars] == [value >= 0 for value in kl]
    heights = [height for _, height in bars]
    for (a, x), (b, y) in itertools.pairwise(zip(map(abs, kl), heights, strict=True)):
        assert (a - b) * (x - y) >= 0 or abs(x - y) < 2  # taller where it is more
    assert "SOD weight" in viewer.texts("svg.map .title")
    assert viewer.text("svg.map text.depth") == "depth 3"
    assert viewer.texts("svg.map .ending") == ["✗ failure", "depth"]
    assert "the curriculum's depth for this iteration" in viewer.text("footer.ending")


def test_the_line_of_the_depth_stands_where_the_schedule_cut_the_episode(viewer, stored: Stored):
    viewer.open(f"trajectory={TRAINED}")
    ends = viewer.js(
        "return ['line.depth', 'line.stop'].map((each) => +document.querySelector(`svg.map ${each}`).getAttribute('x1'))"
    )
    columns = viewer.js(
        "return [...document.querySelectorAll('svg.map .hit')].map((e) => +e.getAttribute('x') + +e.getAttribute('width'))"
    )
    assert ends == pytest.approx([columns[2], columns[2]])  # three turns were played, and three were allowed
    viewer.open("trajectory=eval-after-000/0001")
    assert viewer.texts("svg.map .depth") == []  # an evaluation is not cut
    assert viewer.texts("svg.map .ending") == ["✗ failure", "max turns"]


def test_a_click_on_the_drawing_leads_to_the_turn(viewer):
    viewer.open(f"trajectory={TRAINED}")
    viewer.js("document.querySelectorAll('svg.map .hit')[1].dispatchEvent(new MouseEvent('click', {bubbles: true}))")
    assert viewer.text(".turn.current .number") == "Turn 2"
    assert "turn=2" in viewer.browser.current_url


@pytest.mark.parametrize(
    ("teacher", "before"), [(TEACHER, "student"), ("other", "student"), ("sure", "unsure"), ("unsure", "sure")]
)
def test_steps_have_the_class_that_provenance_gives_them(viewer, stored: Stored, teacher: str, before: str):
    names = viewer.texts("#scorer option")
    viewer.choose("colour", "provenance")
    choose_scorer(viewer, teacher)
    viewer.choose("before", str(names.index(before)))
    met: set[str] = set()
    for place in map(stored.place, ("iter-000001/0000", TRAINED, "ViewedUnits-v0/0000", "ViewedUnits-v0/0002")):
        item = stored.items[place][1]
        viewer.find(f"#row-{place}").click()
        viewer.wait(lambda item=item: viewer.shown() == item.id)
        if teacher not in item.scores or before not in item.scores:
            assert "no provenance is stored here" in viewer.text("p.legend")
            continue
        columns = {"t": item.scores[teacher].logprobs, "s": item.scores[before].logprobs}
        tokens = table(item, **columns)
        classes = provenance(tokens, teacher="t", student="s", distilled="logprob")
        spread = tokens.spread_steps(classes)[tokens.is_action]
        expected = [[Provenance(int(value)).name.lower() for value in part] for part in by_turn(item, spread)]
        assert [viewer.shades(k) for k in range(len(item.turns))] == expected
        assert viewer.texts("p.legend .swatch") == ["a step"] * 4
        met |= {name for part in expected for name in part}
    assert met == {"shared", "teacher", "student", "boosted"} if "sure" in (teacher, before) else met


@pytest.mark.parametrize("mode", ["scorer", "student", "entropy", "weight", "advantage"])
def test_every_colour_shades_by_its_own_number(viewer, stored: Stored, mode: str):
    item = stored.get(TRAINED)
    viewer.open(f"trajectory={TRAINED}&scorer=other&colour={mode}")
    scores = item.scores["other"]
    assert scores.entropy is not None
    bounds = {"entropy": (0.1, 0.3, 0.7, 1.4, 2.5), "weight": (0.2, 0.4, 0.6, 0.8, 1)}.get(mode, NATS)
    weights = sod(table(item, teacher=scores.logprobs), delta=0.5)[item.stream().is_action]
    values = {
        "scorer": -scores.logprobs, "student": -np.concatenate([turn.logprobs_t1 for turn in item.turns]),
        "entropy": scores.entropy, "weight": weights,
    }  # fmt: skip
    shown = [shade for k in range(len(item.turns)) for shade in viewer.shades(k)]
    if mode == "advantage":
        assert all(re.fullmatch("[pm][1-5]|", shade) for shade in shown)
        assert any(shown)
        return
    for shade, value in zip(shown, values[mode].tolist(), strict=True):
        level = sum(value >= bound for bound in bounds)
        assert shade == (f"q{level}" if level else "") or any(math.isclose(value, bound, abs_tol=1e-4) for bound in bounds)


def test_what_is_not_stored_is_said_and_not_invented(viewer):
    viewer.open("trajectory=eval-after-000/0001&colour=advantage")
    assert "no advantage is stored here" in viewer.text("p.legend")
    assert "advantage" not in viewer.hover(0, 0)


def test_weights_of_another_scorer_are_not_called_the_runs_own(viewer):
    viewer.open(f"trajectory={TRAINED}")
    assert "SOD weight" in viewer.texts("svg.map .title")
    choose_scorer(viewer, "other")
    assert "SOD weight, had it been used" in viewer.texts("svg.map .title")
