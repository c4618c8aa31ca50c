"""The tables in the documentation are what the code says."""

import pytest

from agentdistill.signals.catalogue import PAGE, REGISTRIES, entries, held_by, presets, renew


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
    table = entries()
    for name in REGISTRIES[axis].names():
        function = REGISTRIES[axis].describe(name).function
        if name != "none" and function.__module__.startswith("agentdistill."):
            assert f"| {axis} | `{name}` |" in table
            assert held_by(name, function), f"no test names {axis} '{name}'"


def test_a_row_names_paper_needs_and_settings():
    row = next(line for line in entries().splitlines() if line.startswith("| signal | `g-opd` "))
    assert [cell.strip() for cell in row.split("|")[4:7]] == ["arXiv 2602.12125", "reference, teacher", "lam 1.25"]
