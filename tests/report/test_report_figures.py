"""Figures: there where their data are, absent where they are not, and of the numbers they claim."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from agentdistill.intervals import Rate
from agentdistill.provenance import Origins
from agentdistill.report import figures, index_figures, result_figures, time_figures
from agentdistill.report.data import Run, load_run
from agentdistill.report.style import DARK, LIGHT, Draw, Picture, Theme, curve

OVERLAID = [
    figures.success, figures.training, figures.episodes, figures.depth, figures.imitation, time_figures.throughput,
    index_figures.kl_heat_map, index_figures.kl_curves, index_figures.step_weights,
]  # fmt: skip
ONE_RUN = [*(lambda run, each=each: each([run]) for each in OVERLAID), time_figures.time_by_phase, index_figures.endings]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures as drawn in the light theme, without the time it takes to write them as PNG."""
    seen: list[Figure] = []

    def draw_only(name: str, title: str, caption: str, draw: Draw, size: tuple[float, float]) -> Picture:
        seen.append(Figure(figsize=size, layout="constrained"))
        draw(seen[-1], LIGHT)
        return Picture(name, title, caption, b"", b"")

    for module in (figures, index_figures, time_figures, result_figures):
        monkeypatch.setattr(module, "picture", draw_only)
    return seen


@pytest.fixture(scope="module")
def full(make_run: Callable[..., Path]) -> Run:
    return load_run(make_run("full", f2b=True, store=False))


def test_pngs_are_drawn_in_both_themes_without_warnings(full: Run) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = index_figures.kl_heat_map([full])
    assert made is not None
    assert made.svg.startswith(b"<?xml")
    again = index_figures.kl_heat_map([full])
    assert again is not None
    assert (again.svg, again.light) == (made.svg, made.light)
    for data, theme in ((made.light, LIGHT), (made.dark, DARK)):
        image = Image.open(io.BytesIO(data)).convert("RGB")
        assert image.width > 1000
        assert corner(image) == tuple(round(255 * part) for part in to_rgb(theme.surface))


def title(axes: Axes) -> str:
    return axes.get_title() or axes.get_title(loc="left")


def corner(image: Image.Image) -> object:
    return image.getpixel((2, 2))


def test_every_figure_is_there_for_a_full_run_and_absent_without_its_data(full: Run, drawn: list[Figure]) -> None:
    empty = Run(Path("x"), "x", metrics={"eval": [], "iteration": [{"iteration": 1}]})
    for make in ONE_RUN:
        assert make(full) is not None
        assert make(empty) is None
    assert len(drawn) == len(ONE_RUN)


def test_a_run_of_one_iteration_is_drawn_without_warnings(make_run: Callable[..., Path]) -> None:
    run = load_run(make_run("one", iterations=1, f2b=True, store=False, sft=False, temperatures=(1.0,)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for made in (time_figures.time_by_phase(run), index_figures.kl_curves([run]), figures.success([run])):
            assert made is not None


def test_the_heat_map_shows_turns_upwards_and_leaves_turns_without_tokens_empty(drawn: list[Figure]) -> None:
    records = [{"iteration": n, "kl_by_turn": [0.1, 0.2 * n, 9.0], "tokens_by_turn": [5, 5, 0]} for n in (1, 2)]
    assert index_figures.kl_heat_map([Run(Path("x"), "x", metrics={"iteration": records})]) is not None
    (image,) = drawn[0].axes[0].get_images()
    assert np.ma.getdata(image.get_array()).tolist() == [[0.1, 0.1], [0.2, 0.4]]
    assert image.origin == "lower"


def test_first_and_last_curves_weigh_turns_by_their_tokens(drawn: list[Figure]) -> None:
    records = [
        {"iteration": n, "kl_by_turn": [1.0 if n % 2 else 3.0], "tokens_by_turn": [30 if n % 2 else 10]} for n in range(20)
    ]
    index_figures.kl_curves([Run(Path("x"), "x", metrics={"iteration": records})])
    lines = drawn[0].axes[0].get_lines()
    assert [line.get_label() for line in lines] == ["first 2 iterations", "last 2 iterations"]
    assert [line.get_ydata().tolist() for line in lines] == [[1.5], [1.5]]


def test_the_success_figure_has_a_panel_a_temperature_and_a_line_a_run(full: Run, drawn: list[Figure]) -> None:
    other = Run(Path("y"), "other $run$", metrics=full.metrics)
    assert figures.success([full, other]) is not None
    panels = drawn[0].axes
    assert [title(axes) for axes in panels] == ["greedy decoding", "temperature 1"]
    labels = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert labels == ["full", "other $run$", "teacher"]


def test_text_that_looks_like_mathematics_is_drawn_as_text(full: Run) -> None:
    broken = [Run(Path(name), name, metrics=full.metrics) for name in (r"$\frac{$", "a$b")]
    assert figures.success(broken) is not None


def test_phases_that_were_not_timed_are_other(drawn: list[Figure]) -> None:
    timing = {"iteration": 1, "generate": 1.0, "update": 2.0, "total": 4.0}
    made = time_figures.time_by_phase(Run(Path("x"), "x", timings=[timing]))
    assert made is not None
    assert "4 s in all" in made.caption
    shares = [text.get_text() for text in drawn[0].axes[1].texts]
    assert shares == ["25%", "50%", "25%"]


def test_themes_name_colours_of_enough_contrast() -> None:
    for theme in (LIGHT, DARK):
        for color in (theme.ink, theme.muted, *theme.series):
            assert contrast(color, theme) >= 3.0, json.dumps([color, theme.surface])


def contrast(color: str, theme: Theme) -> float:
    """WCAG 2 contrast ratio of a colour on the theme's surface."""

    def luminance(name: str) -> float:
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(name)]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear))

    low, high = sorted((luminance(color), luminance(theme.surface)))
    return (high + 0.05) / (low + 0.05)


def test_any_two_runs_are_told_apart_with_and_without_colour_blindness() -> None:
    for theme in (LIGHT, DARK):
        for kind, matrix in VISION.items():
            seen = [lab(color, matrix) for color in theme.series]
            apart = [(float(np.linalg.norm(a - b)), i, j) for i, a in enumerate(seen) for j, b in enumerate(seen) if i < j]
            assert min(apart)[0] >= 20, (kind, min(apart))  # CIE76; 2.3 is a just noticeable difference


def test_more_runs_than_colours_differ_in_their_dashes() -> None:
    styles = [curve(LIGHT, index) for index in range(32)]
    assert len({(style["color"], str(style["linestyle"])) for style in styles}) == 32
    assert "marker" not in curve(LIGHT, 0, np.arange(100.0))
    assert curve(LIGHT, 0, np.array([np.nan, 1.0]))["marker"] == "o"


@pytest.fixture(scope="module")
def three(full: Run, make_run: Callable[..., Path]) -> list[Run]:
    others = [load_run(make_run(name, f2b=True, store=False, seed=seed)) for name, seed in (("second", 1), ("x" * 70, 2))]
    return [full, *others]


@pytest.mark.parametrize("make", OVERLAID, ids=lambda make: make.__name__)
def test_every_curve_of_several_runs_lies_over_the_others_and_is_named(
    make: Callable[..., Picture | None], three: list[Run], drawn: list[Figure]
) -> None:
    assert make(three) is not None
    (figure,) = drawn
    if make is index_figures.kl_heat_map:
        panels = [axes for axes in figure.axes if axes.get_images()]
        assert [title(axes)[:6] for axes in panels] == ["full", "second", "xxxxxx"]
        assert len({axes.get_images()[0].get_clim() for axes in panels}) == 1  # one scale
        return
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    for name in ("full", "second", "x" * 19 + "…" + "x" * 20):
        assert any(each.startswith(name) for each in names), names
    colors = {line.get_color() for axes in figure.axes for line in axes.get_lines()}
    assert colors >= set(LIGHT.series[:3])


def test_lengths_and_tool_calls_are_of_episodes(drawn: list[Figure]) -> None:
    record = {"iteration": 1, "stop_reasons": {"terminated": 6, "depth": 4}, "left_out": 2, "action_tokens": 400, "turns": 3.0}
    record |= {"tool_calls": 20, "tool_errors": 5, "overflowed": 1, "reward": -0.5}
    assert figures.episodes([Run(Path("x"), "x", metrics={"iteration": [record]})]) is not None
    values = {title(axes): axes.get_lines()[0].get_ydata()[0] for axes in drawn[0].axes if axes.get_visible()}
    assert values == {
        "turns an episode": 3.0, "student tokens an episode": 50.0, "reward an episode": -0.5, "tool calls an episode": 2.0,
        "tool calls that failed": 0.25, "did not fit the context": 0.1,
    }  # fmt: skip


def test_throughput_is_of_each_phases_own_time(drawn: list[Figure]) -> None:
    metrics = {"iteration": [{"iteration": 1, "action_tokens": 600}, {"iteration": 2, "action_tokens": 300}]}
    timing = {"generate": 2.0, "score": 0.0, "update": 3.0, "total": 6.0}
    timings = [{"iteration": 2, **timing}, {"iteration": 9, **timing}]
    assert time_figures.throughput([Run(Path("x"), "x", metrics=metrics, timings=timings)]) is not None
    values = {title(axes): axes.get_lines()[0].get_ydata().tolist() for axes in drawn[0].axes}
    assert [each[0] for each in values.values()] == [50.0, 150.0, 100.0]
    assert all(np.isnan(each[1]) for each in values.values())  # tokens of that iteration are not known
    assert list(values) == ["all phases (tokens/s)", "generation (tokens/s)", "update (tokens/s)"]


def test_step_weights_of_one_run_are_shown_by_size_where_that_was_measured(drawn: list[Figure]) -> None:
    record = {"weight_by_step": [1.0, 0.5], "weight_small_share": 0.1, "weight_shares": [0.1, 0.2, 0.3, 0.4, 0.0]}
    run = Run(Path("x"), "x", metrics={"iteration": [{"iteration": 1, **record}, {"iteration": 2, **record}]})
    assert index_figures.step_weights([run]) is not None
    tops = [patch.get_data().values[0] for patch in drawn[0].axes[1].patches]
    assert tops == pytest.approx([0.1, 0.3, 0.6, 1.0, 1.0])


def test_success_by_type_has_a_point_for_each_type_and_stage(drawn: list[Figure]) -> None:
    rate, run = Rate(0.5, 0.25, 0.875, 8, 8), Run(Path("x"), "x")
    types = [("cool", {"before": rate, "after": rate}), ("heat", {"after": rate})]
    assert result_figures.by_type([run], [[]]) is None
    assert result_figures.by_type([run], [types]) is not None
    before, after = drawn[0].axes[0].containers
    assert (len(before.lines[0].get_xdata()), len(after.lines[0].get_xdata())) == (1, 2)
    assert after.lines[2][0].get_segments()[0][:, 0].tolist() == [0.25, 0.875]
    assert result_figures.by_type([run, run], [types, types[:1]]) is not None
    assert [len(each.lines[0].get_xdata()) for each in drawn[1].axes[0].containers] == [2, 1]


def test_provenance_is_drawn_as_shares_of_all_steps(drawn: list[Figure]) -> None:
    counts = {f"iter-{n:06d}": np.array([[0, n, 10 - n, 0], [2, 2, 0, 0]]) for n in (1, 2, 3)}
    found = Origins("big", "student", 0.1, 0.1, counts | {"eval-after": np.array([[9, 9, 9, 9]])})
    run = Run(Path("x"), "x")
    assert result_figures.origin(run, Origins("big", "student", 0.1, 0.1)) is None
    made = result_figures.origin(run, found)
    assert made is not None
    assert "42 steps, scored by 'big'" in made.caption
    over, late = drawn[0].axes
    teacher = next(patch for patch in over.patches if patch.get_label() == "teacher")
    assert teacher.get_data().values.tolist() == pytest.approx([3 / 14, 4 / 14, 5 / 14])
    assert over.patches[-1].get_data().values.tolist() == pytest.approx([1, 1, 1])
    assert sum(bar.get_height() for bar in late.patches) == pytest.approx(2)  # two turns, each a whole
    assert result_figures.origin_of_runs([(0, run, found), (1, run, found)]) is not None
    assert drawn[1].axes[0].get_lines()[1].get_ydata().tolist() == pytest.approx([3 / 14, 4 / 14, 5 / 14])


# Simulations at full severity: G. M. Machado, M. M. Oliveira, L. A. F. Fernandes, IEEE TVCG 2009.
VISION = {
    "none": np.eye(3),
    "protan": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "deutan": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    "tritan": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
}


def lab(color: str, matrix: np.ndarray) -> np.ndarray:
    """A colour in CIELAB as seen."""
    seen = matrix @ [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ seen
    x, y, z = (np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in np.clip(xyz / [0.95047, 1, 1.08883], 0, None))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])
