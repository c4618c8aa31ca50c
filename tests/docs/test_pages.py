"""Every page: its commands parse, its experiments load, its Python exists, and the errors it quotes are the code's."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
from typing import Any

import pytest

import agentdistill as ad
from agentdistill import api, cli, config, curricula, yamltext
from agentdistill.config import load_experiment, override, parse_experiment
from agentdistill.signals import Method
from agentdistill.training.check import check
from tests.docs.pages import ROOT, blocks, sitegen, written

sitegen()
from sitegen import environments, methods, reference, repository  # noqa: E402

GENERATED = {**methods.pages(), **reference.pages()}
PAGES = {**written(), **GENERATED, **{uri: text for uri, text in repository.pages().items() if uri == "contributing.md"}}
BLOCKS = [block for page, text in PAGES.items() for block in blocks(page, text)]


def of(language: str) -> list[Any]:
    found = [block for block in BLOCKS if block.language == language]
    return [pytest.param(block, id=f"{block.page}-{i}") for i, block in enumerate(found)]


COMMANDS = [(block.page, words) for block in BLOCKS if block.language == "bash" for words in block.commands]
OTHER_PROGRAMS = {"make", "pip", "export"}


@pytest.mark.parametrize(("page", "words"), [pytest.param(p, w, id=f"{p}: {' '.join(w)[:60]}") for p, w in COMMANDS])
def test_every_command_is_one_that_the_program_takes(page, words):
    if words[0] == "torchrun":
        words = words[words.index("-m") + 1 :]
    assert words[0] in OTHER_PROGRAMS | {"agentdistill"}
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    if words[0] == "agentdistill":
        command = cli._command(words[1:])
        if isinstance(command, cli.Train) and command.experiment.name != "guess.yaml":  # the tutorial runs that one
            load_experiment(ROOT / command.experiment, config.parse_overrides(command.overrides))


@pytest.mark.parametrize("block", of("python"))
def test_every_python_block_compiles_and_names_what_there_is(block):
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("agentdistill"):
            module = importlib.import_module(str(node.module))
            for name in node.names:
                assert hasattr(module, name.name), f"{node.module} has no {name.name}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ad":
            assert hasattr(ad, node.attr)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            if isinstance(owner, ast.Name) and owner.id == "ad" and node.func.attr in api.__all__:
                keywords = {each.arg: None for each in node.keywords if each.arg}
                inspect.signature(getattr(ad, node.func.attr)).bind(*[None] * len(node.args), **keywords)


def test_the_example_of_a_token_table_computes_what_it_says():
    block = next(block for block in BLOCKS if block.page == "concepts.md" and block.language == "python")
    names: dict[str, Any] = {}
    exec(block.text, names)
    assert names["Method"].load("opd").apply(names["table"]).advantage.tolist() == [-1.0, -2.0]


@functools.cache
def tiny() -> dict[str, Any]:
    read: dict[str, Any] = yamltext.read((ROOT / "experiments" / "tiny.yaml").read_text(encoding="utf-8"))
    return read


@pytest.mark.parametrize("block", of("yaml"))
def test_every_yaml_block_is_read_as_an_experiment(block):
    for text in (
        [block.text] if not block.text.startswith("method:") else re.findall(r"method:.*\n(?:(?!method:).*\n?)*", block.text)
    ):
        sections = yamltext.read(text)
        assert isinstance(sections, dict)
        loaded = parse_experiment({**override(tiny(), {"name": "page"}), **sections})
        Method.load(loaded.method)
        curricula.load(loaded.schedule)


@pytest.mark.parametrize("name", methods._published())
def test_a_presets_example_has_every_section_that_the_preset_needs(name):
    made = parse_experiment({**tiny(), **yamltext.read(methods.example(name))})
    check(made, Method.load(made.method), curricula.load(made.schedule))


def test_every_method_and_preset_has_a_page_with_paper_settings_and_use():
    for axis, registry in methods.KINDS.items():
        for name in registry.names():
            found = registry.describe(name)
            if name == "none" or not found.function.__module__.startswith("agentdistill."):
                continue
            page = GENERATED[f"methods/{axis}/{name}.md"]
            assert "## In an experiment" in page
            assert all(f"| `{setting}` |" in page for setting in found.settings)
    assert "arXiv 2605.07725" in GENERATED["methods/step_weight/sod.md"]
    assert all(f"methods/presets/{name}.md" in GENERATED for name in methods._published())


def templates() -> set[str]:
    """Every text in the package's code, an interpolation standing for anything."""
    out = set()
    for top in ("agentdistill", "envs", "tools", "curricula"):
        for path in sorted((ROOT / top).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                parts = node.values if isinstance(node, ast.JoinedStr) else [node] if isinstance(node, ast.Constant) else []
                texts = [part.value if isinstance(part, ast.Constant) else None for part in parts]
                if texts and all(text is None or isinstance(text, str) for text in texts):
                    out.add(one_gap("".join("…" if text is None else text for text in texts)))
    return out


def one_gap(text: str) -> str:
    """What is filled in side by side is one gap."""
    return re.sub("…+", "…", text)


def test_every_error_that_the_troubleshooting_page_quotes_is_one_of_the_codes():
    quoted = [block.text.strip() for block in BLOCKS if block.page == "troubleshooting.md" and block.title == "error"]
    known = templates()
    assert len(quoted) >= 15
    lost = [each for each in quoted if one_gap(each) not in known]
    assert not lost


def test_every_built_in_environment_has_its_options_on_a_page():
    from agentdistill import environment

    asked = set(re.findall(r"<!-- options: (\S+) -->", "".join(PAGES.values())))
    built_in = {each.id for each in environment.catalogue() if each.source == "built in"}
    assert asked == built_in - {"agentdistill/Calculator-v0"}  # Arithmetic's earlier name
    assert "| `preset` |" in environments.options("agentdistill/ALFWorld-v0")


def test_every_verb_and_option_is_in_the_reference():
    page = GENERATED["reference/cli.md"]
    for name, command in reference.verbs().items():
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert section
        for each in command.__dataclass_fields__:
            if each != "overrides":
                assert each.replace("_", "-") in section.lower() or each.replace("_folder", "").upper() in section


def test_links_of_the_repositorys_files_lead_into_the_site():
    assert repository.relink("[m](docs/methods.md#signals)", "contributing.md") == "[m](methods.md#signals)"
    assert repository.relink("[c](../experiments/cooking/README.md)", "methods.md") == "[c](results/cooking.md)"
    assert repository.relink("[t](../tests/needs.py)", "methods.md") == "t (`tests/needs.py`)"
    assert repository.relink("```\n[x](../nowhere)\n```", "methods.md") == "```\n[x](../nowhere)\n```"


def test_no_page_names_a_registry():
    hosts = ("pypi.org", "pythonhosted", "npmjs", "registry-1.", "files.pythonhosted")
    named = [(page, host) for page, text in PAGES.items() for host in hosts if host in text]
    assert not named


def test_a_placeholder_in_the_codes_words_is_read_and_is_no_tag():
    assert "Run folder (default: runs/&lt;name>)." in GENERATED["reference/cli.md"]
    assert not re.findall(r"^[^`]*<[a-z]+>", GENERATED["reference/cli.md"], re.MULTILINE)
