"""The plots of a report, as inline SVG that takes its text colour from the page."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from jinja2.utils import markupsafe
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# A colour that no plot uses; it becomes the text colour of the page, be it light or dark.
_INK = "#010203"
COLOURS = ("#3f7fd9", "#e07b39", "#3a9c6d", "#b05cc0", "#c9a227", "#d2567b", "#4aa7b5", "#8a8f98")
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "datarax",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": _INK,
    "text.parse_math": False,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#8a8f98",
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
_MOST_SCRIPTS = 7


def curves(metrics: Sequence[Mapping[str, Any]]) -> dict[str, markupsafe.Markup]:
    """A plot for each of loss, temperature, learning rate and validation recall that was logged."""
    train = [line for line in metrics if line["kind"] == "train"]
    validation = [line for line in metrics if line["kind"] == "validation"]
    recalls = sorted({key for line in validation for key in line if "recall_at_" in key}, key=_rank)
    plots = {
        "Loss": _lines(train, ("loss",)),
        "Validation recall": _lines(validation, recalls[:6]),
        "Temperature": _lines(train, ("temperature",)),
        "Learning rate": _lines(train, ("learning_rate",)),
    }
    return {title: plot for title, plot in plots.items() if plot}


def heat_map(
    similarity: np.ndarray, groups: Sequence[str], *, fields: tuple[str, str]
) -> markupsafe.Markup:
    """Cosine similarity [n, n] of one field by another; equal `groups` are adjacent."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(5.6, 5.0)
        shown = axes.imshow(similarity, cmap="magma", interpolation="nearest", aspect="equal")
        starts = [i for i, group in enumerate(groups) if i == 0 or groups[i - 1] != group]
        centres = [(a + b - 1) / 2 for a, b in _spans(starts, len(groups))]
        labels = [_short(groups[start]) for start in starts]
        axes.set_xticks(centres, labels, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(centres, labels)
        axes.tick_params(length=0)
        for start in starts[1:]:
            axes.axhline(start - 0.5, color="#ffffff", linewidth=0.5, alpha=0.7)
            axes.axvline(start - 0.5, color="#ffffff", linewidth=0.5, alpha=0.7)
        axes.grid(visible=False)
        axes.set(xlabel=fields[1], ylabel=fields[0])
        figure.colorbar(shown, ax=axes, shrink=0.7, label="cosine similarity").outline.set_visible(
            False
        )
        return _svg(figure, f"Similarity of {fields[0]} and {fields[1]}")


def modality_map(points: Mapping[str, np.ndarray]) -> markupsafe.Markup:
    """Two coordinates of each embedding [n, 2], coloured by modality."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(4.4, 4.2)
        for colour, (modality, xy) in zip(COLOURS, points.items(), strict=False):
            axes.scatter(
                xy[:, 0], xy[:, 1], s=5, color=colour, alpha=0.55, linewidths=0, label=modality
            )
        _bare(axes)
        return _svg(figure, "Embeddings by modality")


def script_map(points: np.ndarray, scripts: Sequence[str]) -> markupsafe.Markup:
    """Two coordinates of each embedding [n, 2], coloured by the most frequent scripts."""
    names, counts = np.unique(np.array(scripts, dtype=object).astype(str), return_counts=True)
    frequent = names[np.argsort(-counts, kind="stable")[:_MOST_SCRIPTS]]
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(4.4, 4.2)
        rest = ~np.isin(scripts, frequent)
        axes.scatter(
            points[rest, 0], points[rest, 1], s=4, color=COLOURS[-1], alpha=0.3, linewidths=0
        )
        for colour, name in zip(COLOURS, frequent, strict=False):
            rows = np.array([script == name for script in scripts])
            label = _short(str(name))
            axes.scatter(
                points[rows, 0],
                points[rows, 1],
                s=6,
                color=colour,
                alpha=0.75,
                linewidths=0,
                label=label,
            )
        _bare(axes)
        return _svg(figure, "Embeddings by script")


def _lines(lines: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> markupsafe.Markup | None:
    keys = [key for key in keys if any(line.get(key) is not None for line in lines)]
    if not keys:
        return None
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(4.2, 2.5)
        for colour, key in zip(COLOURS, keys, strict=False):
            kept = [(line["step"], line[key]) for line in lines if line.get(key) is not None]
            marker = "o" if len(kept) < 40 else ""
            steps, values = zip(*kept, strict=True)
            label = key.replace("recall_at_", "R@").replace("_", " ")
            axes.plot(steps, values, color=colour, marker=marker, markersize=3, label=label)
        axes.set(xlabel="step")
        if len(keys) > 1:
            axes.legend(fontsize=8, loc="best")
        return _svg(figure, f"{keys[0]} by step")


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    # A Figure of its own: pyplot would keep it in a global list.
    figure = Figure(figsize=(width, height))
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0.0)
    axes = figure.subplots()
    axes.patch.set_alpha(0.0)
    return figure, axes


def _bare(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=4, markerscale=2.2)


def _svg(figure: Figure, title: str) -> markupsafe.Markup:
    content = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(content, format="svg", metadata=nothing)
    text = content.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    label = markupsafe.Markup('<svg role="img" aria-label="{}"').format(title)
    return markupsafe.Markup(text.replace("<svg", label, 1))


def _spans(starts: Sequence[int], end: int) -> list[tuple[int, int]]:
    return list(zip(starts, [*starts[1:], end], strict=True))


def _short(text: str) -> str:
    return text if len(text) <= 16 else text[:15] + "…"


def _rank(key: str) -> tuple[int, str]:
    digits = key.rsplit("_", 1)[-1]
    return (int(digits) if digits.isdigit() else 0, key)
