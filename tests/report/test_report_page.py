"""The page as a reader's browser gets it: complete, self-contained, and safe against what it shows."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from agentdistill.errors import UserError
from agentdistill.report import report
from agentdistill.report.data import load_run
from agentdistill.report.examples import choose, examples
from agentdistill.report.page import rows
from agentdistill.store import Store
from agentdistill.trajectory import Scores, StopReason, Trajectory, Turn

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>\x1b\u202e\ud800'


class Page(HTMLParser):
    """Tags with attributes, and the text of an HTML file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.raw = path.read_text(encoding="utf-8")
        self.feed(self.raw)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def attributes(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.tags if name in attributes]


def evil_episode() -> Trajectory:
    turn = Turn([1], [2, 3], EVIL, EVIL, [-1.0, -1.0], [-1.0, -1.0])
    messages = [{"role": EVIL, "content": EVIL}]
    item = Trajectory(EVIL, EVIL, 0, EVIL, messages, [turn], StopReason.TERMINATED, success=True)
    item.scores[EVIL] = Scores(np.array([-1.0, -1.7]))
    return item


@pytest.fixture(scope="module")
def run(make_run: Callable[..., Path]) -> Path:
    folder = make_run("<b>run</b>", iterations=4, sft=False, temperatures=(1.0,), done=False)
    Store(folder / "store").write("iter-000004", [evil_episode()])
    (folder / "store" / "iter-000003.parquet").write_bytes(b"PAR1 cut short")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "iteration", "iteration": 5, "kl": 0.')
    return folder


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    path = report([run])
    assert path == run / "report" / "index.html"
    return Page(path)


def test_the_page_asks_nothing_of_any_network(page: Page) -> None:
    sources = page.attributes("src") + page.attributes("srcset")
    assert len(sources) >= 10
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert page.attributes("href") == []
    assert "url(" not in page.raw
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'")


def test_what_a_run_says_cannot_become_markup(page: Page) -> None:
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "iframe", "object", "form", "svg"}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert "<script>alert(1)</script>" in page.text
    assert "<b>run</b>" in page.text
    assert not set("\x1b\u202e\ud800") & set(page.raw)


def test_the_page_shows_both_themes_of_each_figure_and_they_lie_beside_it_as_png_and_svg(page: Page, run: Path) -> None:
    files = {file.name for file in (run / "report").iterdir()}
    names = ("endings", "episodes", "kl-by-turn", "kl-curves", "success", "throughput", "time", "training", "weights")
    assert files == {"index.html", *(f"{name}.{kind}" for name in names for kind in ("png", "svg"))}
    stored = (run / "report" / "success.png").read_bytes()
    assert f"data:image/png;base64,{base64.b64encode(stored).decode()}" in page.attributes("src")
    assert len(page.attributes("srcset")) == len(page.attributes("src")) == 9


def test_the_summary_holds_rates_with_intervals(page: Page) -> None:
    text = " ".join(page.text.split())
    assert "15.0 % [10.1, 19.9], n = 200" in text
    assert "93.0 % [89.5, 96.5], n = 200" in text
    assert "not finished" in text


def test_rates_by_task_type_are_shown_where_an_evaluation_tells_them_apart(make_run: Callable[..., Path]) -> None:
    folder = make_run("typed", iterations=2, sft=False, temperatures=(1.0,))
    assert "Success by task type" not in Page(report([folder])).text
    won = {"success": 0.25, "low": 0.1, "high": 0.5, "n": 16, "tasks": 16}
    typed = {"kind": "eval", "label": "after", "temperature": 1.0, **won, "by_type": {EVIL: won, "heat": "x"}}
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(typed) + "\n")
    page = Page(report([folder]))
    text = " ".join(page.text.split())
    assert "Success by task type" in text
    assert text.count("25.0 % [10.0, 50.0], n = 16") == 2  # the whole rate, and the one type's
    assert not {"script", "img onerror"} & {tag for tag, _ in page.tags}


def test_the_page_says_what_is_missing(page: Page) -> None:
    text = " ".join(page.text.split())
    assert "1 line of the metrics could not be read and was skipped." in text
    assert "The run is unfinished" in text
    assert "iter-000003.parquet is damaged" in text
    assert "no tokenizer in the run" in text


def test_the_page_answers_whether_kl_grows(page: Page) -> None:
    assert "with the turn index: +0.0" in " ".join(page.text.split())


def test_tokens_are_shaded_by_their_divergence_and_show_their_numbers(run: Path) -> None:
    shown = examples(load_run(run))
    tokens = shown[0].turns[0].tokens
    assert [(token.text, token.level) for token in tokens] == [("⟨2⟩", 0), ("⟨3⟩", 3)]
    assert tokens[1].title == "id 3 · student -1.000 · teacher -1.700 · difference +0.700 nats"
    assert shown[0].turns[0].kl == pytest.approx(0.35)


def test_a_success_a_failure_and_the_highest_kl_are_chosen(make_run: Callable[..., Path]) -> None:
    folder = make_run("chosen", iterations=3, sft=False)
    extreme = evil_episode()
    extreme.success, extreme.scores = False, {"teacher": Scores(np.array([-30.0, -30.0]))}
    Store(folder / "store").write("iter-000001", [extreme])
    broken = evil_episode()
    broken.stop_reason, broken.success = StopReason.ENV_ERROR, True
    Store(folder / "store").write("iter-000004", [broken])
    found = {heading: (batch, item) for heading, batch, item in choose(load_run(folder))}
    assert list(found) == ["Success", "Failure", "Highest KL"]
    assert (found["Success"][0], found["Success"][1].success) == ("iter-000003", True)
    assert (found["Failure"][0], found["Failure"][1].success) == ("iter-000003", False)
    assert found["Highest KL"][0] == "iter-000001"


def test_replayed_expert_tokens_shift_no_score(make_run: Callable[..., Path]) -> None:
    folder = make_run("expert", iterations=1, sft=False)
    item = evil_episode()
    item.turns.insert(0, Turn([1], [8, 9], "a", "o", author="expert", finish="replayed"))
    Store(folder / "store").write("iter-000001", [item])
    (shown,) = examples(load_run(folder))
    assert [[token.level for token in turn.tokens] for turn in shown.turns] == [[-1, -1], [0, 3]]


def test_tokens_are_text_where_the_run_has_a_tokenizer(make_run: Callable[..., Path]) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder = make_run("tokenizer", iterations=1, sft=False)
    words = Tokenizer(models.WordLevel({"<unk>": 0, "open": 1, "go": 2, "<door>": 3}, unk_token="<unk>"))
    words.pre_tokenizer, words.decoder = pre_tokenizers.WhitespaceSplit(), decoders.WordPiece()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained(folder / "tokenizer")
    Store(folder / "store").write("iter-000001", [evil_episode()])
    run = load_run(folder)
    (shown,) = examples(run)
    assert [token.text for token in shown.turns[0].tokens] == ["go", " <door>"]
    (folder / "tokenizer" / "tokenizer.json").write_text("{")
    run = load_run(folder)
    (shown,) = examples(run)
    assert [token.text for token in shown.turns[0].tokens] == ["⟨2⟩", "⟨3⟩"]
    assert "could not be loaded" in run.notes[-1]


def test_rates_come_from_the_summary_where_the_metrics_have_none(make_run: Callable[..., Path]) -> None:
    folder = make_run("summary", iterations=1, store=False, sft=False, temperatures=(), done=False)
    assert rows(load_run(folder)) == []
    (folder / "summary.json").write_text(json.dumps({"after": {"success": 0.5, "low": 0.4, "high": 0.6, "n": 9}}))
    (row,) = rows(load_run(folder))
    assert row.rates["after"] is not None
    assert row.rates["after"].n == 9


def test_several_runs_share_a_page_beside_them(make_run: Callable[..., Path], tmp_path: Path) -> None:
    first = make_run("first", iterations=1, store=False, sft=False, temperatures=(1.0,))
    for name in ("a/same", "b/same"):
        shutil.copytree(first, tmp_path / name)
    folders = [tmp_path / "a/same", tmp_path / "b/same"]
    path = report(folders)
    assert path == tmp_path / "a" / "comparison" / "index.html"
    shown = Page(path)
    assert shown.attributes("href") == ["#run-1", "#run-2"]
    assert "a/same" in shown.text
    assert "b/same" in shown.text
    assert (path.parent / "success.png").exists()
    assert (path.parent / "b-same-time.png").exists()


def test_folders_that_are_not_runs_are_refused_before_anything_is_drawn(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentdistill.report.section", lambda _: pytest.fail("drawn before the folders were checked"))
    with pytest.raises(UserError, match="no run to report on"):
        report([])
    with pytest.raises(UserError, match="there is no run folder"):
        report([run, tmp_path / "missing"])


def test_a_report_that_cannot_be_written_is_a_user_error(make_run: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_run("plain", iterations=0, store=False, sft=False, temperatures=(1.0,))
    assert report([folder], tmp_path / "x.html") == tmp_path / "x.html"
    with pytest.raises(UserError, match=r"could not be written to .*x\.html"):
        report([folder], tmp_path / "x.html" / "deeper")
