"""The user's own modules, by name and by file."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentdistill.errors import UserError
from agentdistill.modules import import_module


def test_two_files_of_one_name_are_two_modules_and_each_is_run_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "games.py").write_text(f"open({str(log)!r}, 'a').write('{folder}')")
    for path in ("a/games.py", "b/games.py", "b/../a/games.py"):
        import_module(str(tmp_path / path))
    assert log.read_text() == "ab"


@pytest.mark.parametrize("code", ["0", '"bye"', ""])
def test_a_module_that_ends_the_program_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    (tmp_path / "leaving.py").write_text(f"import sys\nsys.exit({code})")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in (str(tmp_path / "leaving.py"), "leaving"):
        for _ in range(2):  # a failed module is not taken for an imported one
            with pytest.raises(UserError, match=r"leaving.*it ends the program"):
                import_module(name)


def test_a_module_that_fails_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise ValueError('one\\ntwo')")
    with pytest.raises(UserError, match=r"broken\.py' failed while it was imported: ValueError: one two"):
        import_module(str(tmp_path / "broken.py"))
    with pytest.raises(UserError, match="does not exist"):
        import_module(str(tmp_path / "nowhere.py"))


def test_a_file_that_changed_is_run_again(tmp_path: Path) -> None:
    log, module = tmp_path / "log", tmp_path / "games.py"
    for word in "aab":
        module.write_text(f"open({str(log)!r}, 'a').write('{word}')")
        import_module(str(module))
    assert log.read_text() == "ab"
