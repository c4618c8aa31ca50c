"""Files of the repository that are pages too, and links between the two worlds."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_LINK = re.compile(r"(?<!`)(!?)\[([^\]]*)\]\(([^)#\s]*)(#[^)\s]*)?\)")


def _sources() -> dict[str, str]:
    """Path in the site by path in the repository, of files outside docs/."""
    out = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
    for path in sorted(ROOT.glob("experiments/*/README.md")):
        out[path.relative_to(ROOT).as_posix()] = f"results/{path.parent.name}.md"
    return out


def pages() -> dict[str, str]:
    """Markdown by path in docs/; the README is not among them, the home page stands for it."""
    return {uri: _text(source) for source, uri in _sources().items() if source != "README.md"}


def pictures() -> dict[str, Path]:
    """Pictures beside pages of experiments, by path in docs/."""
    return {f"results/{path.parent.name}/{path.name}": path for path in sorted(ROOT.glob("experiments/*/*.png"))}


def navigation() -> list[dict[str, str]]:
    """The part of the navigation below Project."""
    return [{f"Results: {Path(uri).stem}": uri} for uri in _sources().values() if uri.startswith("results/")]


def relink(markdown: str, uri: str) -> str:
    """The page at `uri` with relative links led to where their targets are in the site; a path where they are not in it."""
    sources = _sources()
    here = next((source for source, at in sources.items() if at == uri and source != "README.md"), f"docs/{uri}")

    def lead(found: re.Match[str]) -> str:
        picture, text, target, anchor = found[1], found[2], found[3], found[4] or ""
        if not target or "://" in target or target.startswith("mailto:"):
            return found[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
        if path in sources:
            at = sources[path]
        elif path.startswith("docs/"):
            at = path.removeprefix("docs/")
        elif picture:
            parts = Path(path).parts
            at = f"results/{parts[-2]}/{parts[-1]}"
        else:
            return f"{text} (`{path}`)" if text.strip("`") != path else f"`{path}`"
        return f"{picture}[{text}]({posixpath.relpath(at, posixpath.dirname(uri) or '.')}{anchor})"

    blocks = re.split(r"(^ *```.*?^ *```)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(block if i % 2 else _LINK.sub(lead, block) for i, block in enumerate(blocks))


def _text(source: str) -> str:
    return (ROOT / source).read_text(encoding="utf-8")
