"""The built site: no warnings, and nothing in it is fetched from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.needs import needs


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs("mkdocstrings", "pip install 'agentdistill[docs]'")
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_of_the_navigation_is_built(site):
    for page in ("index", "tutorial", "methods/step_weight/sod", "methods/presets/sod", "reference/cli", "reference/api/verbs"):
        assert (site / f"{page}.html").is_file()
    assert "record_demonstrations" in (site / "reference" / "api" / "verbs.html").read_text(encoding="utf-8")


def test_what_a_page_asks_for_by_a_comment_is_filled_in(site):
    page = (site / "environments.html").read_text(encoding="utf-8")
    assert "How an episode begins" in page
    assert "examine cookbook" in page
    assert "<!-- options" not in page
    assert "<!-- episode" not in page


def test_no_page_loads_anything_from_elsewhere(site):
    loads = re.compile(r"""<(?:script|img|iframe|source|link)\b[^>]*?\b(?:src|href)=["']?(?:https?:)?//[^"'\s>]+""")
    for path in site.rglob("*.html"):
        assert not loads.findall(path.read_text(encoding="utf-8")), path
    for path in site.rglob("*.css"):
        assert not re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", path.read_text(encoding="utf-8")), path
    for path in site.rglob("*.js"):
        assert not re.findall(r"unpkg\.com|fonts\.g|api\.github", path.read_text(encoding="utf-8")), path
