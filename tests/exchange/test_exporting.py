"""Stored episodes leave as tables, JSON lines, chat and SFT data: what is written is what was stored, and comes back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from agentdistill import api
from agentdistill.chat import Chat
from agentdistill.cli import main
from agentdistill.errors import UserError
from agentdistill.exchange import exporting, registry, source, tables
from agentdistill.exchange.dialogue import plain, structured
from agentdistill.store import Store, token_frame
from agentdistill.trajectory import StopReason, Trajectory
from tests.exchange.conftest import play_tools
from tests.needs import needs

ROOT = Path(__file__).parents[2]


def quiet(_: str) -> None:
    """Takes lines of progress."""


def export(run: Path, form: str, out: Path, **options: Any) -> Path:
    api.export(run, form, out=out, say=quiet, **options)
    return out


def jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def stored(run: Path) -> list[Trajectory]:
    return list(Store(run / "store").trajectories())


# Chat JSONL, and back


def as_said(t: Trajectory) -> list[Any]:
    return [t.messages, [(turn.action, turn.observation, turn.reward, turn.finish) for turn in t.turns]]


def test_chat_jsonl_comes_back_to_the_same_words_rewards_and_ids(tmp_path: Path, tool_run: Path):
    out = export(tool_run, "chat", tmp_path / "chat.jsonl")
    api.import_trajectories(out, "chat", out=tmp_path / "back", tokenizer=str(tool_run / "tokenizer"), say=quiet)
    before, after = stored(tool_run), stored(tmp_path / "back")
    assert list(map(as_said, after)) == list(map(as_said, before))
    for name in ("id", "env_id", "seed", "task_id", "task_type", "success", "stop_reason", "temperature", "env_options"):
        assert [getattr(t, name) for t in after] == [getattr(t, name) for t in before]
    for old, new in zip(before, after, strict=True):
        assert [turn.action_ids for turn in new.turns] == [turn.action_ids for turn in old.turns]
        assert new.turns[0].tool_calls == old.turns[0].tool_calls


def test_what_was_imported_is_exported_as_it_was(tmp_path: Path, tool_run: Path):
    out = export(tool_run, "chat", tmp_path / "chat.jsonl")
    api.import_trajectories(out, "chat", out=tmp_path / "back", tokenizer=str(tool_run / "tokenizer"), say=quiet)
    again = jsonl(export(tmp_path / "back", "chat", tmp_path / "again.jsonl"))
    assert again == [{**row, "model": f"imported:{row['model']}"} for row in jsonl(out)]


def test_calls_are_set_apart_where_that_says_the_same_text_and_only_there(tool_run: Path):
    words, two, thinking = (structured(t) for t in stored(tool_run))
    assert [m["role"] for m in words] == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert words[2]["content"] == "Let me see."
    (call,) = words[2]["tool_calls"]
    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("calculator", {"expression": "2 + 3"})
    assert (words[3]["content"], words[3]["tool_call_id"]) == ("5", call["id"])
    assert len(two[2]["tool_calls"]) == 2
    assert two[5] == {"role": "assistant", "content": "<tool_call>broken"}  # malformed: it stays text
    assert (thinking[2]["content"], len(thinking[2]["tool_calls"])) == ("<think>\nfirst\n</think>\n", 1)


# Tables


def test_the_table_of_tokens_is_the_stores(tmp_path: Path, tool_run: Path):
    table = pq.read_table(export(tool_run, "parquet", tmp_path / "t.parquet", table="tokens"))
    expected = token_frame(stored(tool_run))
    assert table.num_rows == expected.num_rows
    for name in expected.schema.names:
        np.testing.assert_array_equal(np.array(table[name].to_pylist()), np.array(expected[name].to_pylist()))
    assert "logprob.big model" in table.schema.names


def test_a_row_a_trajectory_and_a_row_a_turn(tmp_path: Path, tool_run: Path):
    rows = pq.read_table(export(tool_run, "parquet", tmp_path / "a.parquet")).to_pylist()
    turns = pq.read_table(export(tool_run, "parquet", tmp_path / "b.parquet", table="turns")).to_pylist()
    for t, row in zip(stored(tool_run), rows, strict=True):
        assert (row["id"], row["env"], row["success"], row["reward"], row["turns"]) == (
            t.id, t.env_id, t.success, t.reward, len(t.turns),
        )  # fmt: skip
        assert row["logprob.big model"] == pytest.approx(t.scores["big model"].logprobs.mean())
        mine = [each for each in turns if each["trajectory"] == t.id and each["batch"] == row["batch"]]
        assert [each["action"] for each in mine] == [turn.action for turn in t.turns]
        assert sum(each["action_tokens"] for each in mine) == row["student_tokens"] == t.n_action_tokens
        weighted = sum(each["logprob.big model"] * each["action_tokens"] for each in mine)
        assert weighted == pytest.approx(t.scores["big model"].logprobs.sum())
        assert sum(each["tool_errors"] for each in mine) == row["tool_errors"]
    assert [row["tool_calls"] for row in rows] == [1, 3, 1]
    assert [row["batch"] for row in rows] == ["iter-000001", "iter-000001", "rollout"]


@pytest.mark.parametrize("table", tables.TABLES)
def test_a_scorer_of_one_group_only_has_a_column_in_all(table: str, chatml: Chat, tmp_path: Path, monkeypatch: Any):
    monkeypatch.setattr(source, "GROUP", 2)
    played = play_tools(chatml.tokenizer, 5)
    for each in played[:-1]:
        each.scores.clear()
    store = Store(tmp_path / "store")
    store.write("b", played)
    n = exporting.export_store(store, "r", "parquet", tmp_path / "t.parquet", options={"table": table})
    with pq.ParquetFile(tmp_path / "t.parquet") as file:
        assert file.num_row_groups == 3  # memory holds one at a time
    found = pq.read_table(tmp_path / "t.parquet")
    assert found.num_rows == n
    scored = [value is not None and not math.isnan(value) for value in found["logprob.big model"].to_pylist()]
    assert any(scored)
    assert not all(scored)


# JSON lines


def test_whole_trajectories_have_messages_tokens_and_scores(tmp_path: Path, tool_run: Path):
    for t, row in zip(stored(tool_run), jsonl(export(tool_run, "jsonl", tmp_path / "x.jsonl")), strict=True):
        assert [turn["action_ids"] for turn in row["turns"]] == [turn.action_ids for turn in t.turns]
        assert [turn["logprobs"] for turn in row["turns"]] == [turn.logprobs for turn in t.turns]
        assert row["scores"] == {"big model": {"logprobs": t.scores["big model"].logprobs.tolist()}}
        assert row["messages"] == structured(t)
        assert (row["reward"], row["group"]) == (t.reward, t.group)


def test_numbers_that_are_none_and_characters_that_are_none_are_json(tmp_path: Path, chatml: Chat):
    (t,) = play_tools(chatml.tokenizer, 1)
    t.turns[-1].reward, t.turns[0].observation = float("nan"), "\ud800 é"
    store = Store(tmp_path / "store")
    store.write("b", [t])
    exporting.export_store(store, "r", "jsonl", tmp_path / "x.jsonl")
    (row,) = jsonl(tmp_path / "x.jsonl")
    assert row["reward"] is None
    assert row["turns"][0]["observation"] == "\ud800 é"


# Data for fine-tuning


def test_messages_of_an_sft_data_set_are_the_text_that_the_student_wrote(tmp_path: Path, tool_run: Path):
    rows = jsonl(export(tool_run, "sft", tmp_path / "x.jsonl"))
    assert rows == [{"messages": plain(t)} for t in stored(tool_run)]
    assert rows[0]["messages"][2]["content"].count("<tool_call>") == 1


def test_prompts_and_completions_are_a_row_a_message_of_the_students(tmp_path: Path, guess_run: Path):
    rows = jsonl(export(guess_run, "sft", tmp_path / "x.jsonl", shape="prompt-completion"))
    turns = [(t, k) for t in stored(guess_run) for k, turn in enumerate(t.turns) if turn.author == "student"]
    assert len(rows) == len(turns)
    for (t, k), row in zip(turns, rows, strict=True):
        assert row["completion"] == [{"role": "assistant", "content": t.turns[k].action}]
        assert row["prompt"] == plain(t)[: len(t.messages) + 2 * k]


@pytest.mark.parametrize("shape", ["messages", "prompt-completion"])
def test_datasets_loads_the_folder(shape: str, tmp_path: Path, tool_run: Path):
    needs("datasets")
    import datasets

    lines = jsonl(export(tool_run, "sft", tmp_path / "x.jsonl", shape=shape))
    loaded = datasets.load_from_disk(str(export(tool_run, "sft", tmp_path / "x", shape=shape)))
    assert loaded.to_list() == lines
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x", "x.jsonl"]


def test_without_datasets_a_folder_is_refused_with_the_remedy(tmp_path: Path, tool_run: Path, monkeypatch: Any):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs that package \(pip install datasets\); install it, or let --out end in .jsonl"):
        export(tool_run, "sft", tmp_path / "x")


# W&B


@pytest.mark.parametrize("table", ["trajectories", "turns"])
def test_a_wandb_table_of_an_offline_run_holds_the_rows(table: str, tmp_path: Path, tool_run: Path, monkeypatch: Any):
    needs("wandb", "pip install 'agentdistill[wandb]'")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    out = export(tool_run, "wandb", tmp_path / "w", table=table)
    (path,) = (out / "wandb").glob(f"offline-run-*/files/media/table/{table}_*.table.json")
    found = json.loads(path.read_text())
    expected = pq.read_table(export(tool_run, "parquet", tmp_path / "t.parquet", table=table)).to_pylist()
    assert [dict(zip(found["columns"], row, strict=True)) for row in found["data"]] == expected


# Filters and refusals


@pytest.mark.parametrize("form", ["chat", "jsonl", "sft", "parquet"])
def test_filters_hold_for_every_format(form: str, tmp_path: Path, tool_run: Path):
    def count(name: str, **options: Any) -> int:
        return api.export(tool_run, form, out=tmp_path / f"{name}.jsonl", say=quiet, **options)

    assert count("all") == 3
    assert count("batch", batch="rollout") == 1
    assert count("won", success_only=True) == 2
    assert count("both", batch="iter-000001", success_only=True) == 1


def test_episodes_whose_environment_failed_are_no_successes_and_no_sft_data(tmp_path: Path, chatml: Chat):
    played = play_tools(chatml.tokenizer, 2)
    played[0].stop_reason, played[0].success = StopReason.ENV_ERROR, True
    store = Store(tmp_path / "store")
    store.write("b", played)
    assert exporting.export_store(store, "r", "sft", tmp_path / "a.jsonl") == 1
    assert exporting.export_store(store, "r", "chat", tmp_path / "b.jsonl", success_only=True) == 0
    assert exporting.export_store(store, "r", "chat", tmp_path / "c.jsonl") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--format parqet --out x", "there is no format 'parqet' to write; did you mean 'parquet'?"),
        ("--format inspect --out x", "format 'inspect' is read only; those that can be written are chat, jsonl, parquet, sft"),
        ("--format chat --out x --table turns", "format 'chat' takes no table, which is of parquet and wandb"),
        ("--format parquet --out x --table turn", "table 'turn' is none of format 'parquet'; did you mean 'turns'?"),
        ("--format wandb --out x --table tokens", "table 'tokens' is none of format 'wandb'"),
        ("--format sft --out x --shape text", "shape 'text' is none of format 'sft'"),
        ("--format chat --out there", "'there' is there already; choose another --out, or remove it first"),
        ("--format chat --out x --batch rolout", "has no batch 'rolout'; did you mean 'rollout'?"),
    ],
)
def test_mistakes_are_told_in_a_sentence(
    words: str, message: str, tmp_path: Path, tool_run: Path, capsys: Any, monkeypatch: Any
):
    monkeypatch.chdir(tmp_path)
    Path("there").touch()
    assert main(["export", str(tool_run), *words.split()]) == 1
    assert message in capsys.readouterr().err
    assert sorted(Path.cwd().iterdir()) == [tmp_path / "there"]


def test_a_failed_export_leaves_nothing_behind(tmp_path: Path, tool_run: Path, monkeypatch: Any):
    def broken(self: Any) -> Any:
        raise UserError("the store is damaged")
        yield

    monkeypatch.setattr(source.Source, "__iter__", broken)
    for form, out in (("chat", "a"), ("parquet", "b"), ("sft", "c"), ("jsonl", "d")):
        with pytest.raises(UserError, match="the store is damaged"):
            export(tool_run, form, tmp_path / out)
    assert list(tmp_path.iterdir()) == []


def test_the_verb_exports(tmp_path: Path, tool_run: Path, capsys: Any):
    assert main(["export", str(tool_run), "--format", "chat", "--out", str(tmp_path / "x" / "chat.jsonl")]) == 0
    assert capsys.readouterr().out.startswith("3 rows written to ")
    assert len(jsonl(tmp_path / "x" / "chat.jsonl")) == 3


def test_a_format_of_ones_own_is_registered_once(monkeypatch: Any):
    monkeypatch.setattr(registry, "_FORMATS", dict(registry.formats()))
    mine = registry.Format("mine", "for a test", write=lambda rows, out: 0)
    assert registry.register(mine) is mine
    assert "mine" in registry.formats()
    with pytest.raises(UserError, match="the format 'mine' is registered twice"):
        registry.register(registry.Format("mine", "another"))


def test_the_format_that_contributing_shows_reads_and_writes(
    tmp_path: Path, tokenizer_folder: Path, tool_run: Path, monkeypatch: Any
):
    monkeypatch.setattr(registry, "_FORMATS", dict(registry.formats()))
    page = (ROOT / "CONTRIBUTING.md").read_text().partition("### A format")[2]
    exec(page.partition("```python\n")[2].partition("```")[0], {})
    (tmp_path / "x.tsv").write_text("one\t1\ntwo\n")
    with pytest.raises(UserError, match=r"x\.tsv, line 2: it has no tab; nothing was imported"):
        api.import_trajectories(tmp_path / "x.tsv", "tsv", out=tmp_path / "in", tokenizer=str(tokenizer_folder), say=quiet)
    assert api.export(tool_run, "tsv", out=tmp_path / "out.tsv", say=quiet) == 3
    assert (tmp_path / "out.tsv").read_text().startswith("iter-000001\titer-000001/0000\tTrue\n")
