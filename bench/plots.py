"""Results as SVG, drawn by matplotlib where it is installed.

A table names the kind of its picture:

    bars       a bar for each sample, cases below each other, on a logarithmic axis
    ranked     a panel for each case, the contenders from best to worst, on a logarithmic axis
    shared     the same with cases and contenders in each other's place
    lines      a line for each contender over the cases, on a logarithmic axis
    rates      a line for each case over the contenders, on a logarithmic axis
    steps      for each sample, which part of the rounds took at most how long
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .common import Sample, Table, median, quartiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
        if table.plot is None or not table.samples:
            continue
        figure = pyplot.figure(figsize=_size(table), layout="constrained")
        if table.plot in ("ranked", "shared"):
            _ranked(table if table.plot == "ranked" else _swapped(table), figure)
        else:
            axes = figure.subplots()
            _KINDS[table.plot](table, axes)
            axes.set_title(table.title)
            n_labels = len(axes.get_legend_handles_labels()[1])
            if n_labels > 6:
                figure.legend(loc="outside right upper", fontsize="small")
            elif n_labels > 1:
                axes.legend()
        file = f"{name}-{len(files) + 1}.svg" if files else f"{name}.svg"
        figure.savefig(directory / file, metadata={"Date": None})
        pyplot.close(figure)
        files.append(file)
    return files


def _size(table: Table) -> tuple[float, float]:
    """Return width and height in inches."""
    if table.plot in ("ranked", "shared"):
        return 12, 0.8 + 0.11 * len(table.samples) + 0.3 * len(_cases(table))
    if table.plot == "bars":
        return 8, 1.0 + 0.22 * len(table.samples) + 0.1 * len(_cases(table))
    return (11 if len(table.samples) > 24 else 8), 4.5


def _swapped(table: Table) -> Table:
    order = _contenders(table)
    samples = [Sample(contender, case, values) for case, contender, values in table.samples]
    return table._replace(samples=sorted(samples, key=lambda sample: order.index(sample.case)))


def _ranked(table: Table, figure: Figure) -> None:
    cases = _cases(table)
    columns = min(2, len(cases))
    panels = figure.subplots(-(-len(cases) // columns), columns, squeeze=False)
    for at, axes in enumerate(panels.flat):
        if at >= len(cases):
            axes.set_visible(False)
            continue
        more_is_better = "a second" in table.unit
        samples = [sample for sample in table.samples if sample.case == cases[at]]
        samples.sort(key=lambda sample: median(sample.values), reverse=more_is_better)
        middles = [median(sample.values) for sample in samples]
        spread = [quartiles(sample.values) for sample in samples]
        error = [
            [max(0.0, middle - low) for middle, (low, _) in zip(middles, spread, strict=True)],
            [max(0.0, high - middle) for middle, (_, high) in zip(middles, spread, strict=True)],
        ]
        colours = [_colour(sample.contender) for sample in samples]
        axes.barh(range(len(samples)), middles, 0.7, xerr=error, color=colours)
        axes.set_yticks(range(len(samples)), [sample.contender for sample in samples], fontsize="small")
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.set_title(cases[at], fontsize="medium")
    figure.suptitle(f"{table.title}: {table.unit}, {'more' if more_is_better else 'less'} is better")


def _colour(contender: str) -> str:
    """Tell coopshm, the bound and the peers apart."""
    if contender.startswith(("coopshm", "Cache.")):
        return "tab:blue"
    return "tab:green" if contender == "functools.lru_cache" else "lightgrey"


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


def _rates(table: Table, axes: Axes) -> None:
    contenders = _contenders(table)
    for at, case in enumerate(_cases(table)):
        samples = [sample for sample in table.samples if sample.case == case]
        places = [contenders.index(sample.contender) for sample in samples]
        width = 1.2 if _colour(case) == "lightgrey" else 2.5
        style = "-" if at < 10 else "--"  # there are ten colours
        middles = [median(sample.values) for sample in samples]
        axes.plot(places, middles, marker="o", label=case, linewidth=width, linestyle=style)
    axes.set_xticks(range(len(contenders)), contenders)
    axes.set_yscale("log")
    axes.set_ylabel(table.unit)


def _steps(table: Table, axes: Axes) -> None:
    for sample in table.samples:
        axes.ecdf(sample.values, label=f"{sample.case}, {sample.contender}")
    axes.set_xscale("log")
    axes.set_xlabel(table.unit)
    axes.set_ylabel("part of the rounds")


_KINDS = {"bars": _bars, "lines": _lines, "rates": _rates, "steps": _steps}
