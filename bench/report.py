"""Results as Markdown, for people, and as JSON, for comparing runs.

What a column of a Markdown table says: the median of the rounds, under the name of its unit; `quartiles`,
between which the middle half of the rounds lies; `p99` and `worst` of the rounds; `n`, how many rounds
there were; and `times X`, the median over the rounds of the value as a multiple of what contender X took in
the same case and round.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from .common import Sample, Table, median, quartiles

__all__ = ["markdown", "to_json", "write"]

#: JSON has each round's value of a sample up to this many rounds.
_MOST_VALUES = 1000


def number(value: float) -> str:
    """Three digits, and all digits before the point."""
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:.3g}"


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least `percent` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-len(ordered) * percent // 100) - 1)]


def ratio(table: Table, sample: Sample) -> float | None:
    """Return the median over the rounds of `sample` as a multiple of the baseline."""
    for other in table.samples:
        if other.contender == table.baseline and other.case == sample.case:
            if not any(other.values):
                return None
            if len(sample.values) != len(other.values):  # a round is missing, so there are no pairs
                return median(sample.values) / median(other.values) if median(other.values) else None
            pairs = zip(sample.values, other.values, strict=True)
            return median([value / base for value, base in pairs if base])
    return None


def _cell(column: str, sample: Sample) -> str:
    values = sample.values
    if column == "median":
        return number(median(values))
    if column == "quartiles":
        return " to ".join(number(value) for value in quartiles(values))
    if column == "p99":
        return number(percentile(values, 99))
    if column == "worst":
        return number(max(values))
    return str(len(values))


def _table(table: Table) -> list[str]:
    heads = [table.case_is, table.contender_is, *(table.unit if c == "median" else c for c in table.show)]
    if table.baseline:
        heads.append(f"times {table.baseline}")
    lines = [f"### {table.title}", "", _line(heads), _line(["---", "---", *["--:"] * (len(heads) - 2)])]
    last = None
    for sample in table.samples:
        cells = ["" if sample.case == last else sample.case, sample.contender]
        cells += [_cell(column, sample) for column in table.show]
        if table.baseline:
            multiple = ratio(table, sample)
            cells.append("" if multiple is None else f"{multiple:.2f}" if multiple < 100 else number(multiple))
        lines.append(_line(cells))
        last = sample.case
    return [*lines, ""]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def markdown(
    name: str,
    text: str,
    tables: Sequence[Table],
    notes: Sequence[str],
    machine: Mapping[str, str],
    pictures: Sequence[str] = (),
) -> str:
    """Return the page of question `name`; the first line of `text` is its title."""
    title, _, method = text.strip().partition("\n")
    lines = [f"# {name}: {title}", "", method.strip(), ""]
    for table in tables:
        lines += _table(table)
    lines += [f"![{Path(picture).stem}]({picture})" for picture in pictures]
    lines += ["### Notes", ""] if notes else []
    lines += [f"- {note}" for note in notes]
    lines += ["", "### Taken on", "", *(f"- {what}: {value}" for what, value in machine.items()), ""]
    return "\n".join(lines)


def to_json(
    name: str,
    tables: Sequence[Table],
    notes: Sequence[str],
    machine: Mapping[str, str],
) -> dict[str, object]:
    return {
        "question": name,
        "machine": dict(machine),
        "notes": list(notes),
        "tables": [
            {
                "title": table.title,
                "unit": table.unit,
                "baseline": table.baseline,
                "samples": [_sample(table, sample) for sample in table.samples],
            }
            for table in tables
        ],
    }


def _sample(table: Table, sample: Sample) -> dict[str, object]:
    first, third = quartiles(sample.values)
    multiple = ratio(table, sample) if table.baseline else None
    return {
        "case": sample.case,
        "contender": sample.contender,
        "median": _short(median(sample.values)),
        "q1": _short(first),
        "q3": _short(third),
        "min": _short(min(sample.values)),
        "max": _short(max(sample.values)),
        "p99": _short(percentile(sample.values, 99)),
        "n": len(sample.values),
        "ratio": None if multiple is None else _short(multiple),
        "values": [_short(value) for value in sample.values[:_MOST_VALUES]],
    }


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def write(directory: Path, name: str, page: str, data: Mapping[str, object]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.md").write_text(page, encoding="utf-8")
    (directory / f"{name}.json").write_text(_one_line_a_sample(data), encoding="utf-8")


def _one_line_a_sample(data: Mapping[str, object]) -> str:
    """Return `data` as JSON with a line for each sample, so that the diff of two runs can be read."""

    def text(value: object, indent: str) -> str:
        inner = indent + "  "
        if isinstance(value, dict) and "values" not in value:
            items = [f"{inner}{json.dumps(key)}: {text(item, inner)}" for key, item in value.items()]
            return "{\n" + ",\n".join(items) + f"\n{indent}}}"
        if isinstance(value, list) and value:
            return "[\n" + ",\n".join(inner + text(item, inner) for item in value) + f"\n{indent}]"
        return json.dumps(value, ensure_ascii=False)

    return text(data, "") + "\n"
