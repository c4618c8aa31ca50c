"""The tables in the documentation are what the code says."""

from pathlib import Path

import pytest

from agentdistill.signals import AXES
from agentdistill.signals.catalogue import PAGE, REGISTRIES, ROOT, entries, held_by, presets, renew
from tests.signals.mutants import chosen


def test_the_documentation_holds_the_tables_of_the_code():
    page = PAGE.read_text(encoding="utf-8")
    assert renew(page) == page, "run python -m agentdistill.signals.catalogue"
    assert entries() in page
    assert presets() in page


def test_a_row_that_was_changed_by_hand_is_written_anew():
    page = PAGE.read_text(encoding="utf-8")
    edited = page.replace("gamma 0.5", "gamma 0.6").replace("| `sod` |", "| `sodd` |")
    assert edited != page
    assert renew(edited).count("gamma 0.6") < edited.count("gamma 0.6")


@pytest.mark.parametrize("axis", REGISTRIES)
def test_every_entry_has_a_row_and_a_test_that_holds_it(axis):
    table, held = entries(), {module.__name__: files for module, files in chosen([])}
    for name in REGISTRIES[axis].names():
        function = REGISTRIES[axis].describe(name).function
        if name != "none" and function.__module__.startswith("agentdistill."):
            assert f"| {axis} | `{name}` |" in table
            path = ROOT / "tests" / held_by(name, function).strip("`")
            assert path.is_file(), f"no test holds {axis} '{name}'"
            if axis in AXES:  # and that it would fail is what the mutation check sees
                assert str(path) in {str(Path(file).resolve()) for file in held[function.__module__]}


def test_every_row_is_complete():
    rows = [[cell.strip() for cell in row.replace("\\|", "!").split("|")[1:-1]] for row in entries().splitlines()[2:]]
    assert {len(row) for row in rows} == {7}
    for axis, name, what, source, *_, test in rows:
        assert what, (axis, name)
        assert source != "–" or axis in ("aggregation", "schedule"), (axis, name)
        assert test, (axis, name)
    for preset, axes, _, needs, source in ([c.strip() for c in r.split("|")[1:-1]] for r in presets().splitlines()[2:]):
        assert axes, preset
        assert needs, preset
        assert source, preset


PAPERS = [
    "2605.07725", "2604.24005", "2306.13649", "2604.14084", "2605.07865", "2602.12125",
    "2601.18734", "2506.02208", "2602.22495", "2604.13010", "2606.22600", "2502.17927",
    "2402.17110", "2506.12542", "2403.01427", "2605.04062", "2212.12965", "2601.09088",
]  # fmt: skip


@pytest.mark.parametrize("number", PAPERS)
def test_every_paper_that_is_a_method_has_a_preset(number):
    assert f"arXiv {number}" in presets()


def test_a_row_names_paper_needs_and_settings():
    row = next(line for line in entries().splitlines() if line.startswith("| signal | `g-opd` "))
    assert [cell.strip() for cell in row.split("|")[4:7]] == ["arXiv 2602.12125", "reference, teacher", "lam 1.25"]
