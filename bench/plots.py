"""Results as SVG, drawn by matplotlib where it is installed.

A table names the kind of its picture:

    bars       a bar for each sample, cases below each other, on a logarithmic axis
    lines      a line for each contender over the cases, on a logarithmic axis
    multiples  a line for each case over the contenders, as multiples of the baseline
    steps      for each sample, which part of the rounds took at most how long
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .common import Table, median, quartiles
from .report import ratio

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MISSING", "draw"]

MISSING = 'no pictures: matplotlib is not installed (pip install "coopshm[bench]")'


def draw(tables: Sequence[Table], directory: Path, name: str) -> list[str] | None:
    """Draw the tables that ask for it into `directory`; return the files' names, None without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        return None
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = name  # the same figures give the same file
    matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text: a tenth of the size
    from matplotlib import pyplot

    directory.mkdir(parents=True, exist_ok=True)
    files: list[str] = []
    for table in tables:
        if table.plot is None:
            continue
        height = 1.0 + 0.22 * len(table.samples) + 0.1 * len(_cases(table)) if table.plot == "bars" else 4.0
        figure, axes = pyplot.subplots(figsize=(8, height), layout="constrained")
        _KINDS[table.plot](table, axes)
        axes.set_title(table.title)
        if len(axes.get_legend_handles_labels()[1]) > 1:
            axes.legend()
        file = f"{name}-{len(files) + 1}.svg" if files else f"{name}.svg"
        figure.savefig(directory / file, metadata={"Date": None})
        pyplot.close(figure)
        files.append(file)
    return files


def _cases(table: Table) -> list[str]:
    return list(dict.fromkeys(sample.case for sample in table.samples))


def _contenders(table: Table) -> list[str]:
    return list(dict.fromkeys(sample.contender for sample in table.samples))


def _bars(table: Table, axes: Axes) -> None:
    cases, contenders = _cases(table), _contenders(table)
    thickness = 0.8 / len(contenders)
    for at, contender in enumerate(contenders):
        samples = [sample for sample in table.samples if sample.contender == contender]
        shift = (at - (len(contenders) - 1) / 2) * thickness
        places = [cases.index(sample.case) + shift for sample in samples]
        middles = [median(sample.values) for sample in samples]
        spread = [quartiles(sample.values) for sample in samples]
        below = [max(0.0, middle - low) for middle, (low, _) in zip(middles, spread, strict=True)]
        above = [max(0.0, high - middle) for middle, (_, high) in zip(middles, spread, strict=True)]
        axes.barh(places, middles, thickness, xerr=(below, above), label=contender)
    axes.set_yticks(range(len(cases)), cases)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel(table.unit)


def _lines(table: Table, axes: Axes) -> None:
    cases = _cases(table)
    for contender in _contenders(table):
        samples = [sample for sample in table.samples if sample.contender == contender]
        places = [cases.index(sample.case) for sample in samples]
        spread = [quartiles(sample.values) for sample in samples]
        axes.plot(places, [median(sample.values) for sample in samples], marker="o", label=contender)
        axes.fill_between(places, [low for low, _ in spread], [high for _, high in spread], alpha=0.2)
    axes.set_xticks(range(len(cases)), cases)
    axes.set_yscale("log")
    axes.set_xlabel(table.case_is)
    axes.set_ylabel(table.unit)


def _multiples(table: Table, axes: Axes) -> None:
    contenders = _contenders(table)
    for case in _cases(table):
        samples = [sample for sample in table.samples if sample.case == case]
        places = [contenders.index(sample.contender) for sample in samples]
        axes.plot(places, [ratio(table, sample) or 0.0 for sample in samples], marker="o", label=case)
    axes.set_xticks(range(len(contenders)), contenders)
    axes.set_ylim(bottom=0)
    axes.set_ylabel(f"times {table.baseline}")


def _steps(table: Table, axes: Axes) -> None:
    for sample in table.samples:
        axes.ecdf(sample.values, label=f"{sample.case}, {sample.contender}")
    axes.set_xscale("log")
    axes.set_xlabel(table.unit)
    axes.set_ylabel("part of the rounds")


_KINDS = {"bars": _bars, "lines": _lines, "multiples": _multiples, "steps": _steps}
