"""What models and environments wrote is text on the page, whatever it says, and odd numbers are shown as what they are."""

from __future__ import annotations

from agentdistill.store import Store
from agentdistill.viewer import write
from tests.viewer import stored_run
from tests.viewer.conftest import Stored


def show(viewer, stored: Stored, name: str) -> None:
    viewer.find(f"#row-{stored.place(name)}").click()
    viewer.wait(lambda: viewer.shown() == name)


def test_markup_scripts_and_addresses_stay_text(viewer, stored: Stored):
    show(viewer, stored, "Hostile-v0/0000")
    assert viewer.texts("#detail .observation pre") == [stored_run.CLOSING, stored_run.LINK, "abc⟨202E⟩cba"]
    assert viewer.text("#turn-0 .tokens") == stored_run.SCRIPT + "<|end|>"
    assert viewer.texts("#detail .message pre") == [stored_run.SCRIPT, "<img src=x onerror=alert(3)>"]
    assert viewer.text("#detail h2") == stored_run.CLOSING + "-0"
    assert (
        viewer.js("return document.querySelectorAll('#detail script, #detail img, #detail b > b, a[href^=javascript]').length")
        == 0
    )
    assert stored_run.SCRIPT in "".join(viewer.texts("#type option"))
    viewer.choose("type", stored_run.SCRIPT)
    assert viewer.listed() == [place for place, (batch, _) in enumerate(stored.items) if batch == "hostile"]
    told = viewer.hover(0, 0)
    assert "“<”" in told
    assert viewer.js("return [...document.scripts].filter((e) => e.type !== 'application/octet-stream').length") == 1


def test_no_script_but_the_pages_own_may_run(viewer):
    ran = viewer.js(
        "const e = document.createElement('script'); e.textContent = 'document.title = \"owned\"';"
        "document.body.append(e); return document.title"
    )
    assert ran == "a run · agentdistill"
    refused = viewer.errors()  # the one error that is meant
    assert len(refused) == 1
    assert "Content Security Policy" in refused[0]


def test_a_megabyte_is_shown_whole_when_asked_for_and_searched(viewer, stored: Stored):
    show(viewer, stored, "Hostile-v0/0001")
    assert len(viewer.text("#turn-0 .observation pre")) < 10_000
    more = viewer.find("#turn-0 .observation button")
    assert more.text == f"Show all {len(stored_run.LONG):,} characters"
    more.click()
    assert "".join(viewer.texts("#turn-0 .observation pre")) == stored_run.LONG
    viewer.type("q", '"deep deep deep"')
    assert viewer.searched() == [stored.place("Hostile-v0/0001")]


def test_surrogates_controls_and_missing_numbers_are_made_visible(viewer, stored: Stored):
    viewer.choose("scorer", str(viewer.texts("#scorer option").index("teacher")))
    show(viewer, stored, "imported-0")
    assert viewer.texts("#detail .observation pre") == ["⟨D800⟩ ⟨DFFF⟩ ␛[31m␀"] * 3
    facts = dict(zip(viewer.texts(".facts dt"), viewer.texts(".facts dd"), strict=True))
    assert facts["reward"] == "–"
    assert facts["temperature"] == "–"
    assert "NaN" not in viewer.text("#detail")
    assert "null" not in viewer.text("#detail")
    told = viewer.hover(0, 0)
    assert "student\n–" in told or "student –" in told
    assert "−∞" in told


def test_names_of_runs_and_scorers_are_text_too(viewer, stored: Stored, browser, tmp_path):
    from tests.viewer.browser import Viewer

    folder = tmp_path / "<img src=x onerror=alert(1)>"
    item = stored.get("ViewedUnits-v0/0000")
    item.scores["</script><script>alert(2)"] = item.scores["other"]
    try:
        Store(folder / "store").write("rollout", [item])
    finally:
        del item.scores["</script><script>alert(2)"]
    page, _ = write(folder, tmp_path / "page.html")
    other = Viewer(browser, page.as_uri()).open()
    assert other.text("h1") == folder.name
    assert "</script><script>alert(2)" in "".join(other.texts("#scorer option"))
    assert other.errors() == []
