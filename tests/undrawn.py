"""Reports whose pictures are composed and not drawn, for tests of runs that look at no picture.

Reading a run, choosing its figures and putting every line and label into them are as always. matplotlib's own part, to lay a
figure out and to paint it, is left out: it takes seconds a run, more than most of the runs themselves.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import pytest
from matplotlib.figure import Figure

from agentdistill.report import style


@contextlib.contextmanager
def undrawn() -> Iterator[None]:
    """No picture is drawn inside."""

    def composed(draw: style.Draw, theme: style.Theme, size: tuple[float, float], kinds: Sequence[str]) -> list[bytes]:
        draw(Figure(figsize=size, layout="constrained"), theme)
        return [b"" for _ in kinds]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "_drawn", composed)
        yield
