"""Real parts that a machine may lack: a named skip on a user's machine, a failure in CI."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from pathlib import Path

import pytest


def needs(module: str, install: str | None = None) -> None:
    """Skip, or fail in CI, unless a module can be imported."""
    if importlib.util.find_spec(module) is None:
        missing(f"{module} is not installed ({install or f'pip install {module}'})")


def needs_data(folder: str) -> Path:
    """The folder below AGENTDISTILL_DATA; skip, or fail in CI, where there is none."""
    path = Path(os.environ.get("AGENTDISTILL_DATA", "")) / folder
    if not os.environ.get("AGENTDISTILL_DATA") or not path.is_dir():
        missing(f"AGENTDISTILL_DATA names no folder that holds {folder}/")
    return path


def needs_alfworld() -> Path:
    """ALFWorld's engine, its planner and its games; the folder of the games."""
    needs("alfworld", "pip install 'agentdistill[alfworld]'")
    needs("fast_downward", "pip install 'agentdistill[alfworld]'")
    return needs_data("alfworld")


def needs_webshop() -> Path:
    """WebShop's packages and its 1,000 products; their folder."""
    needs("nltk", "pip install 'agentdistill[webshop]'")
    needs("rapidfuzz", "pip install 'agentdistill[webshop]'")
    return needs_data("webshop")


def needs_scienceworld() -> None:
    """ScienceWorld's package, and Java."""
    from agentdistill.envs.java import needs_java

    needs("scienceworld", "pip install 'agentdistill[scienceworld]'")
    if what := needs_java():
        missing(f"ScienceWorld {what}")


def needs_textworld_express() -> None:
    """TextWorld-Express's package, and Java."""
    from agentdistill.envs.java import needs_java

    needs("textworld_express", "pip install 'agentdistill[textworld-express]'")
    if what := needs_java():
        missing(f"TextWorld-Express {what}")


def needs_environment(env_id: str) -> None:
    """Whatever a built-in environment says that it needs."""
    from agentdistill import environment

    if lacks := next(each.missing for each in environment.catalogue() if each.id == env_id):
        missing("; ".join(lacks))


def needs_quickstart() -> Path:
    """The folder of the main job's run, which `.ci/run` makes before the tests."""
    run = Path(__file__).parent.parent / "runs" / "quickstart"
    if not all((run / role / "model.safetensors").is_file() for role in ("student", "teacher")):
        missing(f"{run} holds no trained student and teacher (make quickstart)")
    return run


def needs_chromium() -> tuple[str, str]:
    """A browser, its driver, and what speaks to them; the two programs' paths."""
    needs("selenium")
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        missing("there is no Chromium with its driver (apt-get install chromium chromium-driver)")
    return str(browser), str(driver)


def needs_glibc() -> None:
    """The C library whose settings for memory are made."""
    if platform.libc_ver()[0] != "glibc":
        missing("the C library is not glibc, whose settings these are")


def needs_mount(mounted: bool) -> None:
    """A file system of a test's own, which can be filled."""
    if not mounted:
        missing("no file system may be mounted here (it needs root), so that no disk can be filled")


def needs_vllm() -> None:
    """vLLM in this interpreter; where another one has it, the tests that need it are run there (`make test-vllm`)."""
    if importlib.util.find_spec("vllm") is not None:
        return
    if (other := os.environ.get("AGENTDISTILL_VLLM_PYTHON")) and Path(other).is_file():
        pytest.skip(f"vLLM is in the environment of {other}: make test-vllm", allow_module_level=True)
    missing("vllm is not installed, and AGENTDISTILL_VLLM_PYTHON names no Python that has it (make test-vllm)")


def missing(what: str) -> None:
    """Skip the test by name, or fail in CI."""
    if os.environ.get("CI"):
        pytest.fail(f"CI lacks a real part: {what}")
    pytest.skip(what, allow_module_level=True)
