"""The built site fetches nothing: the theme's scripts name a few addresses of others, for parts that are not used here."""

from __future__ import annotations

import re
from pathlib import Path

_ADDRESS = re.compile(r"https://(?:unpkg\.com|fonts\.(?:gstatic|googleapis)\.com|api\.github\.com)[^\"'`\s)]*")


def clean(folder: str) -> None:
    """Empty such addresses in scripts, and drop source maps, which nobody reads here."""
    for path in Path(folder).rglob("*.js"):
        text = path.read_text(encoding="utf-8")
        kept = re.sub(r"\n//# sourceMappingURL=\S+", "", _ADDRESS.sub("", text))
        if kept != text:
            path.write_text(kept, encoding="utf-8")
    for path in Path(folder).rglob("*.map"):
        path.unlink()
