"""Experiment files: what is accepted, what is merged, and what each mistake says."""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from agentdistill.config import Experiment, dump, load_experiment, merge, parse_experiment, parse_overrides
from agentdistill.errors import UserError

MINIMAL: dict[str, Any] = {"env": {"id": "lab/Guess-v0"}, "student": {"model": "tiny:xs"}}


def write(folder: Path, text: str, name: str = "e.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def complaint(raw: Any, folder: Path) -> str:
    """The sentence that a file with this content gets."""
    path = write(folder, raw if isinstance(raw, str) else yaml.safe_dump(raw))
    with pytest.raises(UserError) as error:
        load_experiment(path)
    text = str(error.value)
    assert "\n" not in text
    assert str(path) in text
    return text


def sections(model: type[BaseModel] = Experiment, at: tuple[str, ...] = ()) -> dict[tuple[str, ...], type[BaseModel]]:
    """Every section by its place in the file."""
    found = {at: model}
    for name, field in model.model_fields.items():
        hint = field.annotation
        for option in typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,):
            if isinstance(option, type) and issubclass(option, BaseModel):
                found |= sections(option, (*at, name))
    return found


def test_the_smallest_experiment_takes_defaults_everywhere() -> None:
    config = parse_experiment(MINIMAL)
    assert (config.name, config.method, config.schedule, config.sampling.max_tokens) == ("run", "opd", "none", 64)
    assert config.teacher is None


@pytest.mark.parametrize("place", sections(), ids=lambda place: ".".join(place) or "top")
def test_an_unknown_field_at_every_level_names_the_nearest(place: tuple[str, ...], tmp_path: Path) -> None:
    real = next(reversed(sections()[place].model_fields))
    raw: dict[str, Any] = {real + "q": 1}
    for part in reversed(place):
        needed = {name: {"model": "x"} for name in ("teacher", "student", "reference")}
        needed |= {"mixed": {"most": 1}, "rollouts": {"store": "x"}}
        raw = {part: {**needed.get(part, {}), **raw}}
    said = complaint(merge(MINIMAL, raw), tmp_path)
    assert f"unknown field '{'.'.join((*place, real + 'q'))}'; did you mean '{real}'?" in said


@pytest.mark.parametrize("place", sections(), ids=lambda place: ".".join(place) or "top")
def test_every_section_and_every_field_is_described(place: tuple[str, ...]) -> None:
    section = sections()[place]
    assert (section.__doc__ or "").strip()
    for name, field in section.model_fields.items():
        assert field.description or (*place, name) in sections(), f"{'.'.join((*place, name))} is not described"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"train": {"lr": "fast"}}, "train.lr must be a number, not 'fast'"),
        ({"train": {"lr": -1}}, "train.lr must be greater than 0, not -1"),
        ({"train": {"lr": True}}, "train.lr must be a number, not true"),
        ({"train": {"tasks": False}}, "train.tasks must be a number, not false"),
        ({"train": {"lr": float("inf")}}, "train.lr must be a finite number, not inf"),
        ({"train": {"lr": float("nan")}}, "train.lr must be a finite number, not nan"),
        ({"train": {"lr": None}}, "train.lr must be a number, not None"),
        ({"train": {"iterations": 1.5}}, "train.iterations must be a whole number, not 1.5"),
        ({"train": {"iterations": "many"}}, "train.iterations must be a whole number, not 'many'"),
        ({"train": {"keep_rollouts": "perhaps"}}, "train.keep_rollouts must be true or false, not 'perhaps'"),
        ({"train": {"betas": [0.9]}}, "train.betas needs an entry 2"),
        ({"train": {"betas": [0.9, 0.9, 0.9]}}, "train.betas must have at most 2 entries"),
        ({"train": {"betas": [0.9, 1.0]}}, "train.betas must be less than 1, not 1.0"),
        ({"train": {"betas": [-0.1, 0.9]}}, "train.betas must be at least 0, not -0.1"),
        ({"train": {"betas": 0.9}}, "train.betas must be a list, not 0.9"),
        ({"student": {"model": "x", "sft": {"betas": [2.0, 0.9]}}}, "student.sft.betas must be less than 1, not 2.0"),
        ({"train": 3}, "train must be a mapping, not 3"),
        ({"name": 3}, "name must be text, not 3"),
        ({"env": {"options": [1]}}, "env.options must be a mapping, not [1]"),
        ({"env": {"options": {1: "a"}}}, "env.options must have names as keys, not 1"),
        ({"env": {"options": {"x": {1: "a"}}}}, "env.options must hold text, finite numbers"),
        ({"env": {"options": {"x": float("nan")}}}, "'x' is nan"),
        ({"env": {"overflow": "wrap"}}, "env.overflow must be 'end' or 'window', not 'wrap'"),
        ({"env": {"id": ""}}, "env.id must not be empty"),
        ({"sampling": {"top_p": 0}}, "sampling.top_p must be greater than 0, not 0"),
        ({"sampling": {"temperature": -1}}, "sampling.temperature must be at least 0, not -1"),
        ({"sampling": {"temperature": float("inf")}}, "sampling.temperature must be a finite number, not inf"),
        ({"teacher": {"privileged": True}}, "teacher.model is missing"),
        ({"student": {"model": ["a"]}}, "student.model must be text, not ['a']"),
        ({"student": {"model": "x", "sft": {"noise": 1.0}}}, "student.sft.noise must be less than 1, not 1.0"),
        ({"tokenizer_vocab": 10}, "tokenizer_vocab must be at least 262, not 10"),
        ({"method": ["sod"]}, "method must be a name or a mapping of settings, not ['sod']"),
        ({"schedule": 3}, "schedule must be a name or a mapping of settings, not 3"),
        ({"eval": {"tasks": 0}}, "eval.tasks must be at least 1, not 0"),
        ({"eval": {"samples": 0}}, "eval.samples must be at least 1, not 0"),
        ({"eval": {"every_tasks": -3}}, "eval.every_tasks must be at least 1, not -3"),
    ],
)
def test_a_wrong_value_says_where_and_what(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    assert says in complaint(merge(MINIMAL, change), tmp_path)


def test_missing_sections_are_named(tmp_path: Path) -> None:
    assert "env is missing" in complaint({"student": {"model": "x"}}, tmp_path)
    assert "env.id is missing" in complaint({"env": {}, "student": {"model": "x"}}, tmp_path)


@pytest.mark.parametrize("text", ["a: [1,", "a: b: c", "\t- x", "{", "a: 1\n b: 2", "'"])
def test_text_that_is_not_yaml_is_one_sentence(text: str, tmp_path: Path) -> None:
    assert "is not valid YAML" in complaint(text, tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: a\nseed: 1\nname: b", "'name' stands twice in one mapping, at lines 1 and 3"),
        ("train: {lr: 1, lr: 2}", "'lr' stands twice in one mapping"),
        ("a: &x [*x]", "the anchor at line 1 contains itself"),
        ("a: &x {b: {c: *x}}", "the anchor at line 1 contains itself"),
        ("a: !!python/object:os.system x", "is not plain data"),
        ("a: !!set {x}", "is not plain data"),
        ("a: " + "[" * 5000, "is not valid YAML"),
    ],
)
def test_yaml_that_means_something_else_than_it_says_is_refused(text: str, says: str, tmp_path: Path) -> None:
    assert says in complaint(text, tmp_path)


def test_an_anchor_may_be_used_often_and_merged(tmp_path: Path) -> None:
    path = write(tmp_path, yaml.safe_dump(MINIMAL) + "x: &b {lr: 1.0, tasks: 3}\ntrain: {<<: *b, lr: 2.0}\nextends: base.yaml")
    write(tmp_path, yaml.safe_dump(MINIMAL), "base.yaml")
    with pytest.raises(UserError, match="unknown field 'x'"):
        load_experiment(path)
    path.write_text("env: {id: g, options: {a: &b {lr: 1.0}, c: {<<: *b, d: *b}}}\nstudent: {model: x}")
    assert load_experiment(path).env.options == {"a": {"lr": 1.0}, "c": {"lr": 1.0, "d": {"lr": 1.0}}}


def test_text_that_looks_like_another_kind_is_quoted_when_dumped(tmp_path: Path) -> None:
    words = ["1e-6", "2024-01-01", "true", "3", "null", "übung: x"]
    config = parse_experiment(merge(MINIMAL, {"env": {"options": {"words": words, "pair": (1, 2.5)}}}))
    assert config.env.options["pair"] == [1, 2.5]
    assert load_experiment(write(tmp_path, dump(config))) == config


def test_a_date_is_text(tmp_path: Path) -> None:
    path = write(tmp_path, "env: {id: g, options: {day: 2024-01-01}}\nstudent: {model: x}")
    assert load_experiment(path).env.options == {"day": "2024-01-01"}


@pytest.mark.parametrize("parent", ["[x, y]", "3", "''", "{a: b}"])
def test_extends_names_one_file(parent: str, tmp_path: Path) -> None:
    assert "extends must be the path of another experiment file" in complaint(f"extends: {parent}", tmp_path)


@pytest.mark.parametrize("name", ["../../zz", "a/b", "a\\b", "..", ".", "", "a\nb", "a\0b"])
def test_a_name_that_is_not_one_folder_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"name must be the name of one folder .*--out takes a path"):
        parse_experiment(MINIMAL | {"name": name})


def test_several_samples_of_a_greedy_evaluation_are_refused(tmp_path: Path) -> None:
    said = complaint(MINIMAL | {"eval": {"samples": 4}}, tmp_path)
    assert "4 samples of a task at temperature 0 are one and the same episode" in said
    assert parse_experiment(MINIMAL | {"eval": {"samples": 4, "temperature": 0.5}}).eval.samples == 4


def test_a_group_of_greedy_rollouts_is_refused(tmp_path: Path) -> None:
    raw = MINIMAL | {"train": {"rollouts": 4}, "sampling": {"temperature": 0}}
    assert "train.rollouts is 4 and sampling.temperature is 0" in complaint(raw, tmp_path)


def test_a_module_file_is_looked_for_beside_the_experiment_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, base, own = tmp_path / "here", tmp_path / "base", tmp_path / "own"
    for folder in (here, base, own):
        folder.mkdir()
        (folder / "games.py").write_text("")
    monkeypatch.chdir(here)
    write(base, yaml.safe_dump(merge(MINIMAL, {"env": {"module": "games.py"}})))
    child = write(own, "extends: ../base/e.yaml\nname: child")
    assert load_experiment(base / "e.yaml").env.module == str(base / "games.py")
    assert load_experiment(child).env.module == str(base / "games.py")
    assert load_experiment(child, {"env.module": "games.py"}).env.module == str(here / "games.py")
    (here / "games.py").unlink()
    assert load_experiment(child, {"env.module": "games.py"}).env.module == str(own / "games.py")
    assert load_experiment(child, {"env.module": "gone.py"}).env.module == "gone.py"
    (base / "games.py").unlink()
    (here / "games.py").write_text("")
    assert load_experiment(child).env.module == str(here / "games.py")
    assert load_experiment(child, {"env.module": "my_package.games"}).env.module == "my_package.games"
    assert parse_experiment(merge(MINIMAL, {"env": {"module": "games.py"}})).env.module == str(here / "games.py")


@pytest.mark.parametrize("text", ["", "- a\n- b", "just words", "3"])
def test_a_file_without_sections_is_refused(text: str, tmp_path: Path) -> None:
    assert "must hold a mapping of sections" in complaint(text, tmp_path)


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: No such file"):
        load_experiment(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        load_experiment(tmp_path)
    with pytest.raises(UserError, match="null byte"):
        load_experiment(write(tmp_path, 'extends: "a\\0b"'))
    (tmp_path / "latin.yaml").write_bytes(b"name: \xff")
    with pytest.raises(UserError, match="is not valid YAML"):
        load_experiment(tmp_path / "latin.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-6", 1e-6), ("1E-6", 1e-6), ("+1e-6", 1e-6), ("1.5e3", 1500.0), (".5e1", 5.0), ("2.e2", 200.0), ("0.001", 0.001)],
)
def test_exponents_are_numbers_in_files_and_overrides(text: str, value: float, tmp_path: Path) -> None:
    path = write(tmp_path, yaml.safe_dump(MINIMAL) + f"train: {{lr: {text}}}\n")
    assert load_experiment(path).train.lr == value
    assert parse_overrides(["--train.lr", text]) == {"train.lr": value}
    assert parse_overrides([f"--sampling={{temperature: {text}}}"]) == {"sampling": {"temperature": value}}


@pytest.mark.parametrize("text", ["- one e", "-e: [", "+e {", "3e", "e5", "1e5x", "-e", ".e", "0xe", "infinity", "nan"])
def test_text_that_only_looks_like_a_number_stays_text(text: str, tmp_path: Path) -> None:
    raw = MINIMAL | {"env": {"id": "x", "options": {"words": [text]}}}
    assert load_experiment(write(tmp_path, yaml.safe_dump(raw))).env.options == {"words": [text]}


def test_overrides_win_over_the_file_and_leave_the_rest(tmp_path: Path) -> None:
    path = write(tmp_path, yaml.safe_dump(MINIMAL | {"train": {"lr": 0.1, "tasks": 3}}))
    config = load_experiment(path, {"train.lr": 1e-6, "name": "x", "teacher.model": "initial"})
    assert (config.train.lr, config.train.tasks, config.name) == (1e-6, 3, "x")
    assert config.teacher is not None
    assert config.teacher.model == "initial"


def test_an_unknown_override_names_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path, yaml.safe_dump(MINIMAL))
    with pytest.raises(UserError, match=r"unknown field 'train.lrr'; did you mean 'lr'\?"):
        load_experiment(path, {"train.lrr": 1})
    with pytest.raises(UserError, match=r"unknown field 'trian'; did you mean 'train'\?"):
        load_experiment(path, {"trian.lr": 1})


def test_overrides_are_read_as_yaml_in_both_spellings() -> None:
    words = ["--name=a=b", "--seed", "-3", "--train.keep_rollouts", "false", "--train.betas", "[0.8, 0.9]", "--env.module="]
    assert parse_overrides(words) == {
        "name": "a=b", "seed": -3, "train.keep_rollouts": False, "train.betas": [0.8, 0.9], "env.module": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train.lr", "1"], "did not understand 'train.lr'"),
        (["--train.lr"], "--train.lr needs a value"),
        (["--train.lr", "--name", "x"], "--train.lr needs a value"),
        (["--"], "did not understand '--'"),
        (["--env.options", "{a"], "the value of --env.options is not valid YAML"),
    ],
)
def test_overrides_that_cannot_be_read_are_one_sentence(words: list[str], says: str) -> None:
    with pytest.raises(UserError) as error:
        parse_overrides(words)
    assert str(error.value).startswith(says)
    assert "\n" not in str(error.value)


def test_an_experiment_extends_others_relative_to_its_file(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    write(tmp_path, yaml.safe_dump(MINIMAL | {"train": {"lr": 0.1, "tasks": 3}}), "base/a.yaml")
    write(tmp_path, "extends: a.yaml\ntrain: {lr: 0.2}\nname: b", "base/b.yaml")
    config = load_experiment(write(tmp_path, "extends: base/b.yaml\nenv: {split: valid}"))
    assert (config.train.lr, config.train.tasks, config.name) == (0.2, 3, "b")
    assert (config.env.id, config.env.split) == ("lab/Guess-v0", "valid")


def test_experiments_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "extends: b.yaml", "a.yaml")
    write(tmp_path, "extends: a.yaml", "b.yaml")
    with pytest.raises(UserError, match="extends itself by way of"):
        load_experiment(tmp_path / "a.yaml")
    with pytest.raises(UserError, match="extends itself"):
        load_experiment(write(tmp_path, "extends: self.yaml", "self.yaml"))
    with pytest.raises(UserError, match=r"gone\.yaml' cannot be read"):
        load_experiment(write(tmp_path, "extends: gone.yaml"))


def test_settings_are_merged_until_another_kind_is_named() -> None:
    base = {"schedule": {"kind": "tcod-f2b", "start": 2, "every": 2}}
    assert merge(base, {"schedule": {"every": 4}})["schedule"] == {"kind": "tcod-f2b", "start": 2, "every": 4}
    same = merge(base, {"schedule": {"kind": "tcod-f2b", "every": 4}})
    assert same["schedule"] == {"kind": "tcod-f2b", "start": 2, "every": 4}
    view = {"env": {"view": "window"}}
    assert merge(view, {"env": {"view": {"pairs": 4}}}) == {"env": {"view": {"kind": "window", "pairs": 4}}}
    assert merge(base, {"schedule": {"kind": "adaptive"}})["schedule"] == {"kind": "adaptive"}
    assert merge(base, {"schedule": "none"})["schedule"] == "none"
    assert merge({"method": {"signal": "opd"}}, {"method": {"preset": "sod"}})["method"] == {"preset": "sod"}


TREES = st.recursive(
    st.one_of(st.integers(), st.text(max_size=3), st.none()),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from("abc"), TREES), st.dictionaries(st.sampled_from("abc"), TREES))
def test_merging_twice_is_merging_once_and_touches_neither_side(a: dict[str, Any], b: dict[str, Any]) -> None:
    before = repr((a, b))
    once = merge(a, b)
    assert merge(once, b) == once
    assert merge(a, {}) == a
    assert repr((a, b)) == before
    for key, value in b.items():
        if not isinstance(value, dict):
            assert once[key] == value


def test_a_dumped_experiment_reads_back_as_itself(tmp_path: Path) -> None:
    raw = MINIMAL | {
        "teacher": {"model": "initial", "privileged": True, "sft": {"lr": 1e-7}},
        "train": {"lr": 1e-6},
        "method": {"preset": "sod", "kd_coef": 0.5},
        "name": "übung",
    }
    config = parse_experiment(raw)
    assert load_experiment(write(tmp_path, dump(config))) == config
    assert "übung" in dump(config)


def test_a_parsed_experiment_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse_experiment(MINIMAL).train.lr = 3  # type: ignore[misc]
