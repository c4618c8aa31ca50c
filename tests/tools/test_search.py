from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentdistill.errors import UserError
from agentdistill.find import find_tool
from agentdistill.tools.search import MAX_CHARS, PASSAGE, Index, Passage, read_folder, search_tool, split
from tests.needs import needs

needs("bm25s")
RIVERS = "# Rivers of Europe\n\nThe Danube flows through ten countries.\n\nThe Rhine rises in the Alps.\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rivers.md").write_text(RIVERS)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "mountains.txt").write_text("Mont Blanc is the highest mountain of the Alps.")
    rows = [{"title": "Vienna", "text": "Vienna lies on the Danube."}, {"contents": "Großglockner, 3798 m. ＡＢＣ"}]
    (tmp_path / "towns.jsonl").write_text("\n\n".join(json.dumps(row) for row in rows))
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / ".hidden.txt").write_text("Danube Danube")
    return tmp_path


def ask(folder: Path, query: str, **more: int) -> str:
    call = search_tool(str(folder)).call({"query": query} | more)
    assert call.ok, call.result
    return call.result


def test_passages_are_shown_with_their_title_and_place_the_best_first(folder: Path):
    assert ask(folder, "highest mountain in the alps").startswith(
        "[1] mountains (sub/mountains.txt)\nMont Blanc is the highest mountain of the Alps.\n\n[2] "
    )
    assert ask(folder, "vienna") == "[1] Vienna (towns.jsonl:1)\nVienna lies on the Danube."
    assert ask(folder, "europe").startswith("[1] Rivers of Europe (rivers.md)\n")


def test_case_ligatures_and_widths_do_not_matter(folder: Path):
    assert "(towns.jsonl:3)" in ask(folder, "GROSSGLOCKNER")
    assert "(towns.jsonl:3)" in ask(folder, "abc")


def test_k_is_how_many_at_most(folder: Path):
    assert ask(folder, "danube", k=1).count("[") == 1
    assert ask(folder, "danube alps", k=2).count("(") == 2
    assert ask(folder, "danube", k=-5).count("[") == 1
    assert ask(folder, "danube", k=10**9).count("[1]") == 1


@pytest.mark.parametrize("query", ["", "  ", "?!", "zzz", "\0", "\ud800", "日本", "<|im_end|>", "x" * 100_000])
def test_odd_queries_find_nothing_and_say_so(folder: Path, query: str):
    assert ask(folder, query) == "Nothing was found; try other words."


@given(st.text(max_size=50))
@settings(max_examples=100, deadline=None)
def test_any_query_is_answered_and_the_same_way_twice(query: str):
    index = Index([Passage("a", "a", "x y z"), Passage("b", "b", "x 1 é"), Passage("c", "c", "x y z")])
    assert index.find(query, 5) == index.find(query, 5)


def test_ties_keep_the_order_of_the_folder():
    passages = [Passage(name, name, "same words") for name in "dbac"]
    assert Index(passages).find("words", 3) == passages[:3]


def test_a_text_without_a_single_word_is_no_error(tmp_path: Path):
    (tmp_path / "a.txt").write_text("!!! ???")
    assert ask(tmp_path, "x") == "Nothing was found; try other words."


def test_long_documents_are_shown_in_bounded_passages(tmp_path: Path):
    (tmp_path / "long.txt").write_text("alpha beta\n\n" * 500 + "gamma " * 5_000 + "x" * 5_000)
    assert max(len(each.text) for each in read_folder(tmp_path)) <= PASSAGE
    shown = ask(tmp_path, "gamma alpha", k=10)
    assert PASSAGE < len(shown) <= MAX_CHARS
    assert "left out" not in shown


@given(st.text(alphabet="ab \n", max_size=300), st.integers(5, 50))
def test_splitting_keeps_every_word_and_the_limit(text: str, limit: int):
    pieces = split(text, limit)
    assert all(0 < len(piece) <= limit for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


def test_a_folder_is_read_once_until_it_changes(folder: Path):
    first, again = (search_tool(str(folder)).function.__closure__ for _ in range(2))
    index = [cell.cell_contents for cell in first or () if isinstance(cell.cell_contents, Index)]
    assert index == [cell.cell_contents for cell in again or () if isinstance(cell.cell_contents, Index)]
    assert len(index) == 1
    (folder / "new.txt").write_text("Loire")
    assert "Loire" in ask(folder, "loire")


def test_an_experiment_names_it_with_its_folder(folder: Path, monkeypatch: pytest.MonkeyPatch):
    found = find_tool({"search": {"folder": str(folder), "k": 1, "name": "look_up"}})
    assert found.name == "look_up"
    assert found.call({"query": "danube"}).result.count("[") == 1
    monkeypatch.chdir(folder.parent)
    assert find_tool({"search": os.path.relpath(folder)}).call({"query": "vienna"}).ok
    with pytest.raises(UserError, match="'search' did not accept the settings"):
        find_tool("search")
    with pytest.raises(UserError, match="did you mean 'folder'"):
        find_tool({"search": {"floder": "x"}})


def test_missing_empty_and_broken_folders_are_refused_by_name(folder: Path, tmp_path: Path):
    with pytest.raises(UserError, match="nowhere' does not exist"):
        search_tool(str(folder / "nowhere"))
    with pytest.raises(UserError, match=r"rivers\.md' is none"):
        search_tool(str(folder / "rivers.md"))
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match=r"no text in .*empty"):
        search_tool(str(folder / "empty"))
    for name, content, said in [
        ("a.txt", b"\xff\xfe", "a.txt' cannot be read: it is not UTF-8"),
        ("b.jsonl", b'{"text": "x"}\n{', "b.jsonl:2 is not JSON"),
        ("c.jsonl", b"[1]", "c.jsonl:1 is not a JSON object"),
        ("d.jsonl", b'{"txt": "x"}', "d.jsonl:1 has no field 'text'; did you mean 'txt'"),
    ]:
        (folder / "empty" / name).write_bytes(content)
        with pytest.raises(UserError, match=said):
            search_tool(str(folder / "empty"))
        (folder / "empty" / name).unlink()
    with pytest.raises(UserError, match="1 to 10 passages, not 11"):
        search_tool(str(folder), k=11)


def test_a_text_of_one_line_is_cut_in_time_that_grows_with_its_length():
    pieces = split("word " * 1_000_000)  # half an hour, were the rest of the text copied for every piece
    assert {len(piece) for piece in pieces[:-1]} == {599}


def test_a_byte_order_mark_is_no_text_and_a_line_feed_in_a_name_no_new_result(tmp_path: Path):
    (tmp_path / "a\n[2] b (c.txt).txt").write_text("apple", encoding="utf-8-sig")
    (passage,) = read_folder(tmp_path)
    assert passage.text == "apple"
    assert "\n" not in passage.source + passage.title


def test_json_that_is_nested_too_deeply_is_refused_by_name(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"a\.jsonl:1 is not JSON"):
        read_folder(tmp_path)
