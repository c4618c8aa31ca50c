"""How figures look: two themes of one design, drawn without a display and without global state."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure

from agentdistill.report.text import visible
from agentdistill.trajectory import FloatArray

_LEGEND = 13  # characters of a legend an inch


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of a theme: surfaces, text, the order of series, and the ends of the sequential scale (low to high).

    The series are eight colours that were searched for: each stands out from the surface, and any two lie far apart to people
    with and without a colour blindness (simulated: G. M. Machado and others, IEEE TVCG 2009; a test holds both).
    """

    surface: str
    ink: str
    muted: str
    grid: str
    series: tuple[str, ...]
    scale: tuple[str, ...]

    @property
    def colormap(self) -> Colormap:
        """The sequential scale; cells without a value show the surface."""
        return LinearSegmentedColormap.from_list("report", list(self.scale)).with_extremes(bad=self.surface)


LIGHT = Theme(
    surface="#ffffff",
    ink="#1c1f24",
    muted="#5f6672",
    grid="#e4e7ec",
    series=("#0349e2", "#e67300", "#62a16f", "#3e0060", "#b67ecd", "#8a4000", "#001d00", "#005158"),
    scale=("#f2f6fc", "#a9cbf0", "#4f90d9", "#1f5aa8", "#0b2a57"),
)
DARK = Theme(
    surface="#16191f",
    ink="#e8eaee",
    muted="#9aa3b0",
    grid="#2b3039",
    series=("#859bff", "#fba934", "#49f0ed", "#9300ff", "#b6a876", "#ffff00", "#8e595d", "#059db4"),
    scale=("#1b222d", "#1f4a80", "#2f7dd1", "#7fb6f2", "#e6f1fd"),
)

Draw = Callable[[Figure, Theme], None]
_LINES: tuple[Any, ...] = ("-", (0, (8, 2)), (0, (4, 1.2)), (0, (8, 2, 1.5, 2)))
_MARKERS = "os^DvPX*"
_FEW = 20
"""Points up to which a line is marked at each: one of a single point would not be seen at all."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure's name and caption, as PNG in both themes and as SVG in the light one."""

    name: str
    title: str
    caption: str
    light: bytes
    dark: bytes
    svg: bytes = b""


def picture(name: str, title: str, caption: str, draw: Draw, size: tuple[float, float]) -> Picture:
    """Draw a figure of `size` inches once for each theme."""
    (light, svg), (dark,) = _drawn(draw, LIGHT, size, ("png", "svg")), _drawn(draw, DARK, size, ("png",))
    return Picture(name, title, caption, light, dark, svg)


def _drawn(draw: Draw, theme: Theme, size: tuple[float, float], kinds: Sequence[str]) -> list[bytes]:
    settings: Any = {
        "font.family": "DejaVu Sans", "font.size": 9.5, "text.parse_math": False,
        "axes.titlesize": 10, "axes.titleweight": "bold",
        "axes.titlelocation": "left", "axes.titlepad": 9, "axes.labelcolor": theme.muted, "axes.labelsize": 9.5,
        "axes.edgecolor": theme.grid, "axes.facecolor": theme.surface, "axes.axisbelow": True,
        "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False,
        "axes.grid": True, "axes.grid.axis": "y", "grid.color": theme.grid, "grid.linewidth": 0.8,
        "text.color": theme.ink, "axes.titlecolor": theme.ink, "xtick.color": theme.muted, "ytick.color": theme.muted,
        "xtick.major.size": 0, "ytick.major.size": 0, "xtick.labelsize": 8.5, "ytick.labelsize": 8.5,
        "figure.constrained_layout.w_pad": 0.08, "figure.constrained_layout.h_pad": 0.08,
        "svg.hashsalt": "agentdistill",
        "lines.linewidth": 1.8, "lines.solid_capstyle": "round", "legend.frameon": False, "legend.fontsize": 8.5,
        "legend.labelcolor": theme.ink, "figure.facecolor": theme.surface, "savefig.facecolor": theme.surface,
    }  # fmt: skip
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in a script that the font lacks is drawn as boxes
        figure = Figure(figsize=size, dpi=160, layout="constrained")
        draw(figure, theme)
        # Laid out here and once: matplotlib would draw everything once more for it, and for each kind.
        if (layout := figure.get_layout_engine()) is not None:
            layout.execute(figure)
            figure.set_layout_engine(None)
        out = []
        for kind in kinds:  # without dates and versions: the same numbers give the same file
            sink = io.BytesIO()
            figure.savefig(sink, format=kind, metadata={"Software": None} if kind == "png" else {"Date": None, "Creator": None})
            out.append(sink.getvalue())
    return out


def legend_below(figure: Figure, axes: Axes) -> None:
    """A legend under the whole figure, where it covers no data; `axes` holds what it names."""
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        widest = max(map(len, labels))
        columns = max(1, min(6, int(_LEGEND * figure.get_figwidth()) // (widest + 7)))
        figure.legend(handles, labels, loc="outside lower left", ncols=columns, handlelength=2.2)


def curve(theme: Theme, index: int, values: FloatArray | None = None) -> dict[str, Any]:
    """How the line of the `index`-th run looks: colours and markers for eight, and dashes, so that one shows beneath another.

    Args:
        values: what is drawn; where it is long, it has no markers.
    """
    style: dict[str, Any] = {"color": theme.series[index % 8], "linestyle": _LINES[(index + index // 8) % len(_LINES)]}
    if values is None or np.isfinite(values).sum() <= _FEW:
        style |= {"marker": _MARKERS[index % 8], "markersize": 4.0}
    return style


def short(name: str, most: int = 40) -> str:
    """A run's name, or a type's, as a legend has room for: without what cannot be drawn, the middle of a long one left out."""
    name = visible(name).replace("\n", " ")
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-(most // 2) :]}"
