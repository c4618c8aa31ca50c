"""A panel is made once, is the same tasks ever after, and is refused where it would not be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agentdistill as ad
from agentdistill import UserError, cli, environment
from tests.conftest import GuessEnv

SMALL: dict[str, Any] = {"max_tokens": 4, "max_turns": 2, "max_context": 128, "say": lambda line: None}


class Typed(GuessEnv):
    """Even and odd tasks; `word` changes what is shown."""

    def __init__(self, *, word: str = "to", **options: Any) -> None:
        super().__init__(**options)
        self.word = word

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        shown, info = super().reset(seed=seed)
        kind = "even" if self.seed % 2 == 0 else "odd"
        return shown.replace("to", self.word), {**info, "task_type": kind if self.seed % 5 else "fifth"}


@pytest.fixture(scope="module", autouse=True)
def _typed() -> Iterator[None]:
    environment.register("lab/Typed-v0", Typed)
    yield
    environment.unregister("lab/Typed-v0")


def test_a_panel_is_the_first_tasks_of_a_split_and_reads_back_as_it_was_made(tmp_path: Path) -> None:
    made = ad.panel("lab/Typed-v0", out=tmp_path / "deep" / "p.json", tasks=10, options={"size": 8})
    assert made == ad.load_panel(tmp_path / "deep" / "p.json")
    assert (made.name, made.split, made.options, made.seeds) == ("p", "test", {"size": 8}, list(range(20_000, 20_010)))
    assert [task.task_type for task in made.tasks][:3] == ["fifth", "odd", "even"]
    assert len({task.start for task in made.tasks}) == 1  # every task begins with the same words here
    other = ad.panel("lab/Typed-v0", out=tmp_path / "q.json", tasks=10, options={"size": 9})
    assert other.tasks[0].start != made.tasks[0].start
    assert other.sha256 != made.sha256
    renamed = ad.panel("lab/Typed-v0", out=tmp_path / "r.json", tasks=10, options={"size": 8}, name="mine")
    assert (renamed.name, renamed.sha256) == ("mine", made.sha256)


def test_so_many_tasks_of_each_type_are_the_first_of_each(tmp_path: Path) -> None:
    made = ad.panel("lab/Typed-v0", out=tmp_path / "p.json", per_type=3)
    assert [(task.seed, task.task_type) for task in made.tasks] == [
        (20_000, "fifth"), (20_001, "odd"), (20_002, "even"), (20_003, "odd"), (20_004, "even"), (20_005, "fifth"),
        (20_006, "even"), (20_007, "odd"), (20_010, "fifth"),
    ]  # fmt: skip
    with pytest.raises(UserError, match="type 'fifth' has 2 tasks in that split, fewer than the 3 asked for of each type"):
        ad.panel("lab/Typed-v0", out=tmp_path / "q.json", per_type=3, tasks=10)


def test_workers_make_the_same_panel(tmp_path: Path) -> None:
    here = ad.panel("agentdistill/Arithmetic-v0", out=tmp_path / "a.json", tasks=8, name="x")
    away = ad.panel("agentdistill/Arithmetic-v0", out=tmp_path / "b.json", tasks=8, name="x", workers=1)
    assert here == away


def test_an_evaluation_plays_the_panels_tasks_and_keeps_a_copy(model: str, tmp_path: Path) -> None:
    panel = ad.panel("lab/Typed-v0", out=tmp_path / "p.json", per_type=2)
    found = ad.evaluate_run(model, out=tmp_path / "o", panel=tmp_path / "p.json", samples=2, temperature=1.0, **SMALL)
    played = ad.load_run(tmp_path / "o").read("eval")
    assert [t.seed for t in played] == [seed for seed in panel.seeds for _ in range(2)]
    assert ad.load_panel(tmp_path / "o" / "panel.json") == panel
    assert found.settings["panel"] == {"name": "p", "sha256": panel.sha256}
    assert sorted(found.by_type) == ["even", "fifth", "odd"]
    assert ad.load_eval(tmp_path / "o").settings["panel"] == found.settings["panel"]


def test_tasks_that_are_no_longer_the_same_are_refused_before_anything_is_played(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ad.panel("lab/Typed-v0", out=tmp_path / "p.json", tasks=4)
    told = Typed.reset

    def later_version(self: Typed, **given: Any) -> Any:
        shown, info = told(self, **given)
        return (shown + "!", info) if self.seed in (20_001, 20_003) else (shown, info)

    monkeypatch.setattr(Typed, "reset", later_version)
    with pytest.raises(UserError) as error:
        ad.evaluate_run(model, out=tmp_path / "o", panel=tmp_path / "p.json", **SMALL)
    assert (
        "2 of 4 tasks of panel 'p' are not what they were: task 'guess-20001' (seed 20001) of 'lab/Typed-v0' begins with other "
        "words now"
    ) in str(error.value)
    assert not (tmp_path / "o" / "store").exists()
    assert not (tmp_path / "o" / "eval.json").exists()


def test_another_name_or_type_of_a_task_is_named(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ad.panel("lab/Typed-v0", out=tmp_path / "p.json", tasks=3)
    told = Typed.reset
    for change, says in (({"task_id": "other"}, "has task_id 'other' now"), ({"task_type": "new"}, "has task_type 'new' now")):
        monkeypatch.setattr(
            Typed, "reset", lambda self, change=change, **given: (told(self, **given)[0], {**told(self, **given)[1], **change})
        )
        with pytest.raises(UserError, match=says):
            ad.evaluate_run(model, out=tmp_path / "o", panel=tmp_path / "p.json", **SMALL)
        monkeypatch.setattr(Typed, "reset", told)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"env": "lab/Guess-v0"}, "env is 'lab/Guess-v0', and panel 'p' has 'lab/Typed-v0'; drop it"),
        ({"tasks": 5}, "tasks is 5, and panel 'p' has 3"),
        ({"split": "valid"}, "split is 'valid', and panel 'p' has 'test'"),
        ({"options": {"size": 4}}, "options is {'size': 4}, and panel 'p' has {}"),
    ],
)
def test_arguments_that_say_other_tasks_than_the_panel_are_refused(
    arguments: dict[str, Any], says: str, model: str, tmp_path: Path
) -> None:
    ad.panel("lab/Typed-v0", out=tmp_path / "p.json", tasks=3)
    with pytest.raises(UserError) as error:
        ad.evaluate_run(model, out=tmp_path / "o", panel=tmp_path / "p.json", **arguments, **SMALL)
    assert says in str(error.value)


def test_a_panel_that_was_changed_or_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    ad.panel("lab/Typed-v0", out=path, tasks=3)
    whole = path.read_text()
    stored = json.loads(whole)
    for change, says in (
        ({"tasks": stored["tasks"][:2]}, "was changed after it was made"),
        ({"options": {"size": 3}}, "was changed after it was made"),
        ({"panel": 2}, "is of version 2, and this agentdistill reads 1"),
        ({"tasks": []}, "has no task"),
        ({"tasks": 7}, "is no task panel"),
    ):
        path.write_text(json.dumps({**stored, **change}))
        with pytest.raises(UserError, match=says):
            ad.load_panel(path)
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="is no task panel, or a damaged one; `agentdistill panel ENV --out FILE` makes one"):
        ad.load_panel(path)
    with pytest.raises(UserError, match="there is no panel"):
        ad.load_panel(tmp_path / "none.json")
    path.write_text(json.dumps({**stored, "name": "a better name"}))
    assert ad.load_panel(path).name == "a better name"


def test_a_panel_is_never_overwritten_and_a_mistake_leaves_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "p.json")
    for words, says in (
        (["lab/Typd-v0"], "did you mean 'lab/Typed-v0'?"),
        (["lab/Typed-v0", "--split", "tset"], "did you mean 'test'?"),
        (["lab/Typed-v0", "--tasks", "501"], "has 500 tasks, fewer than the 501 asked for"),
        (["lab/Typed-v0", "--per-type", "0"], "per_type is 0; a panel has 1 at least"),
        (["lab/Typed-v0", "--options", "{fault: reset}"], "cannot reset"),
    ):
        assert cli.main(["panel", *words, "--out", path]) == 1
        assert says in capsys.readouterr().err
        assert not Path(path).exists()
    assert cli.main(["panel", "lab/Typed-v0", "--tasks", "4", "--out", path]) == 0
    assert "panel p (" in capsys.readouterr().out
    assert cli.main(["panel", "lab/Typed-v0", "--tasks", "4", "--out", path]) == 1
    assert "is there already" in capsys.readouterr().err
    assert cli.main(["show", path]) == 0
    assert "4 tasks of lab/Typed-v0, split test\n  by type: even 1, fifth 1, odd 2" in capsys.readouterr().out


def test_an_evaluation_without_environment_and_panel_is_refused(model: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="an evaluation needs an environment, or a --panel that names one"):
        ad.evaluate_run(model, out=tmp_path / "o", **SMALL)
