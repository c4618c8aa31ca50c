"""MkDocs hooks: pages made from the code are added to the site, and links to files outside docs/ are led to them.

What is generated is in `docs/sitegen`: a page a method (`methods.py`), options and first observations of environments
(`environments.py`), the command line, the fields of an experiment and the API (`reference.py`), and the files of the repository
that are pages too (`repository.py`). Nothing is written into docs/.
"""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("NO_MKDOCS_2_WARNING", "1")  # the theme's word on another version of MkDocs

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from sitegen import environments, methods, offline, reference, repository

PAGES = {**methods.pages(), **reference.pages(), **repository.pages()}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the generated pages into the navigation."""
    for section in config.nav or []:
        for name, items in section.items():
            if name == "Methods":
                items += methods.navigation()
            elif name == "Reference":
                items[-1]["API"] = reference.navigation()
            elif name == "Project":
                items += repository.navigation()
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the generated pages, and the pictures of pages that live elsewhere."""
    for uri, content in PAGES.items():
        files.append(File.generated(config, uri, content=content))
    for uri, path in repository.pictures().items():
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Fill in what a page asks for by a comment, and lead links to where their targets are in the site."""
    return repository.relink(environments.fill(markdown), page.file.src_uri)


def on_post_build(*, config: MkDocsConfig) -> None:
    """Take out of the theme's scripts what they would fetch from elsewhere."""
    offline.clean(config.site_dir)
