"""Registration: what there is, where it comes from, what it lacks here, and what is said when it cannot be made."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import gymnasium as gym
import pytest

from agentdistill import environment, registration
from agentdistill.environment import Entry, EnvironmentFault, TextEnv, needs_package
from agentdistill.envs.data import needs_data
from agentdistill.errors import UserError

Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a distribution of one module, which it announces as a plugin; plugins are looked for anew."""
    known, modules = dict(registration._registered), set(sys.modules)

    def add(name: str, source: str) -> None:
        (tmp_path / f"{name}.py").write_text(source)
        info = tmp_path / f"{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[agentdistill.envs]\ngames = {name}\n")
        environment.load_plugins.cache_clear()

    environment.load_plugins()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registration, "_broken", [])
    yield add
    for name in set(registration._registered) - set(known):
        environment.unregister(name)
    for name in set(sys.modules) - modules:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def row(env_id: str) -> Entry:
    return next(each for each in environment.catalogue() if each.id == env_id)


GAME = """
import agentdistill as ad
import gymnasium

@ad.register("plug/Game-v0")
class Game(ad.TextEnv):
    pass

gymnasium.register("plug/Plain-v0", entry_point=Game)
"""


def test_registering_takes_defaults_that_options_override() -> None:
    class Echo(TextEnv):
        def __init__(self, word: str = "a", times: int = 1) -> None:
            self.word, self.times = word, times

    try:
        assert environment.register("lab/Echo-v0", word="b")(Echo) is Echo
        env = environment.make("lab/Echo-v0", times=3).unwrapped
        assert (env.word, env.times) == ("b", 3)
        assert "lab/Echo-v0" in environment.registered()
    finally:
        environment.unregister("lab/Echo-v0")


def test_the_built_in_environments_are_registered() -> None:
    assert {"agentdistill/TextWorld-v0", "agentdistill/Calculator-v0"} <= set(environment.registered())


def test_a_plugins_environments_are_listed_with_its_distribution(install: Install) -> None:
    install("plug_good", GAME)
    assert row("plug/Game-v0") == Entry("plug/Game-v0", "entry point 'games' of plug_good 1.2")
    assert row("plug/Plain-v0").source == "entry point 'games' of plug_good 1.2"  # registered with Gymnasium itself
    assert environment.make("plug/Game-v0").unwrapped.plan() is None


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import nonexistent_part", "ModuleNotFoundError: No module named 'nonexistent_part'"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("def (", "SyntaxError: invalid syntax"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_warned_of_once_and_everything_else_works(
    install: Install, source: str, says: str
) -> None:
    install("plug_broken", source)
    install("plug_good", GAME)
    with pytest.warns(RuntimeWarning, match=rf"without a plugin: entry point 'games' of plug_broken 1.2 .*: {says}") as told:
        assert {"plug/Game-v0", "agentdistill/TextWorld-v0"} <= set(environment.registered())
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        environment.make("plug/Game-v0")
        with pytest.raises(UserError, match=rf"registered as 'plug/Gone-v0'.*'games' of plug_broken 1.2 could .*: {says}"):
            environment.make("plug/Gone-v0")


def test_an_unknown_id_says_nothing_of_plugins_where_all_were_loaded(install: Install) -> None:
    install("plug_good", GAME)
    with pytest.raises(UserError, match=r"^no environment is registered as 'plug/Gam-v0'; did you mean 'plug/Game-v0'\?$"):
        environment.make("plug/Gam-v0")


def test_an_id_that_resembles_none_is_met_with_how_to_name_a_file_of_ones_own() -> None:
    with pytest.raises(UserError, match=r"as 'zzz/Yyyyyy-v9'; known: .*; one of yours is there .*--module, or env.module"):
        environment.make("zzz/Yyyyyy-v9")


def test_built_in_environments_say_that_they_are_and_what_data_they_lack(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AGENTDISTILL_DATA", str(tmp_path))
    assert row("agentdistill/Arithmetic-v0") == Entry("agentdistill/Arithmetic-v0", "built in")
    assert row("agentdistill/MathPython-v0").source == "built in"
    (lacks,) = row("agentdistill/MathPython-v0").missing
    assert lacks.startswith("needs AGENTDISTILL_DATA/math: download train.jsonl and test.jsonl of ")
    assert ", then run: agentdistill data import math gsm8k_train=path/to/train.jsonl gsm8k_test=" in lacks
    (tmp_path / "math").mkdir()
    assert row("agentdistill/MathPython-v0").missing == ()


def test_every_part_that_is_missing_is_a_sentence() -> None:
    def broken() -> str:
        raise OSError("no socket")

    requires = (needs_package("no_such_package", "pip install it"), needs_package("json", "x"), needs_data("no_data"), broken)
    environment.register("lab/Needy-v0", "no_such_package.env:Env", requires=requires)
    try:
        found = row("lab/Needy-v0")
        with pytest.raises(
            UserError, match="No module named 'no_such_package'; it needs no_such_package: pip install it; it ne"
        ):
            environment.make("lab/Needy-v0")
    finally:
        environment.unregister("lab/Needy-v0")
    assert found.missing == (
        "needs no_such_package: pip install it",
        "needs AGENTDISTILL_DATA/no_data: set AGENTDISTILL_DATA to the folder that holds no_data/",
        "cannot say what it needs: OSError: no socket",
    )
    assert found.source == f"module {__name__}" or found.source == f"script {Path(__file__).name}"


def test_an_environment_whose_module_is_not_there_cannot_run_even_if_it_names_no_needs() -> None:
    environment.register("lab/Away-v0", "no_such_package.env:Env")
    try:
        assert row("lab/Away-v0").missing == ("needs the module 'no_such_package', which cannot be found",)
    finally:
        environment.unregister("lab/Away-v0")


def test_scripts_modules_and_sessions_are_told_apart(tmp_path: Path) -> None:
    line = "import agentdistill as ad; ad.register('lab/Here-v0', ad.TextEnv)"
    show = "; from agentdistill import environment; print([e.source for e in environment.catalogue() if 'Here' in e.id])"
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "__init__.py").write_text(line)
    (tmp_path / "guess.py").write_text(line + show)
    commands = ["guess.py"], ["-c", "import lab" + show], ["-c", line + show]
    started = [
        subprocess.Popen([sys.executable, *words], cwd=tmp_path, stdout=subprocess.PIPE, text=True) for words in commands
    ]
    said = [process.communicate()[0].strip() for process in started]
    assert said == ["['script guess.py']", "['module lab']", "['this session']"]


class Picky(TextEnv):
    def __init__(self, word: str = "", *, raises: str = "") -> None:
        if raises == "TypeError":
            raise TypeError("unsupported operand\n inside")
        if raises == "exit":
            raise SystemExit(0)
        if raises == "UserError":
            raise UserError("Picky has no word 'x'")


@pytest.fixture
def picky() -> Iterator[None]:
    environment.register("lab/Picky-v0", Picky)
    yield
    environment.unregister("lab/Picky-v0")


def test_an_option_that_is_not_taken_is_told_apart_from_an_error_inside(picky: None) -> None:
    says = (
        r"'lab/Picky-v0' did not accept env.options {'wrod': 'a'}: got an unexpected keyword .* 'wrod'; did you mean 'word'\?$"
    )
    with pytest.raises(UserError, match=says):
        environment.make("lab/Picky-v0", wrod="a")
    with pytest.raises(
        EnvironmentFault, match=r"^environment 'lab/Picky-v0' failed in __init__\(\): TypeError: unsupp.* inside$"
    ):
        environment.make("lab/Picky-v0", raises="TypeError")


def test_an_environment_that_cannot_start_is_one_sentence(picky: None) -> None:
    with pytest.raises(EnvironmentFault, match=r"^environment 'lab/Picky-v0' failed in __init__\(\): SystemExit: 0$"):
        environment.make("lab/Picky-v0", raises="exit")
    with pytest.raises(UserError, match=r"^Picky has no word 'x'$"):
        environment.make("lab/Picky-v0", raises="UserError")


def test_a_default_that_the_class_does_not_take_is_laid_to_the_registration() -> None:
    environment.register("lab/Picky-v1", Picky, colour=3)
    try:
        with pytest.raises(UserError, match="did not accept the arguments it was registered with"):
            environment.make("lab/Picky-v1")
    finally:
        environment.unregister("lab/Picky-v1")


def test_gymnasiums_own_options_still_work(picky: None) -> None:
    env = environment.make("lab/Picky-v0", max_episode_steps=3)
    assert isinstance(env, gym.wrappers.TimeLimit)


def test_what_is_no_environment_is_refused() -> None:
    environment.register("lab/Nothing-v0", lambda: 3)
    try:
        with pytest.raises(EnvironmentFault, match=r"must inherit from the gymnasium.Env class"):
            environment.make("lab/Nothing-v0")
    finally:
        environment.unregister("lab/Nothing-v0")
