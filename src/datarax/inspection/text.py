"""A survey for the terminal."""

from collections.abc import Iterator, Sequence

from datarax.inspection.field_tally import FieldSurvey
from datarax.inspection.spread import KEPT
from datarax.inspection.survey import Survey
from datarax.inspection.wording import number, printable, printable_toml, shortened, size
from datarax.inspection.wording import share as share_of

_WIDEST = 100  # characters of a text or a reason
_REASONS = 10
_LOST = 5


def as_text(survey: Survey) -> str:
    """Everything but the samples, for the terminal: nothing in the data can steer it."""
    blocks = [
        _head(survey),
        f"[fields]\n{printable_toml(survey.toml)}",
        _aligned([("field", "kind", "shape", "present", "cut"), *_field_rows(survey)], left=3),
        _aligned([("size", "least", "median", "greatest"), *_size_rows(survey)], left=1),
        f"medians are of a sample of {number(KEPT)}" if survey.is_sampled else "",
        *(_formats(field) for field in survey.fields if field.formats),
        *(block for field in survey.fields if (block := _duplicates(field))),
        _bad(survey),
        _lost(survey),
    ]
    return "\n\n".join(block for block in blocks if block)


def _head(survey: Survey) -> str:
    files = f"{number(len(survey.shards))} shard{'s' if len(survey.shards) != 1 else ''}"
    lines = [f"{number(survey.records)} records in {files}"]
    if survey.looked_at < survey.records:
        lines.append(f"looked at {number(survey.looked_at)} of them")
    left_out = f", {number(survey.skipped)} are left out" if survey.skipped else ""
    lines.append(
        f"{number(survey.good)} can be read, {number(survey.bad)} cannot{left_out}; "
        f"{size(survey.part_bytes)} of parts"
    )
    return "\n".join(lines)


def _field_rows(survey: Survey) -> Iterator[tuple[str, ...]]:
    for field in survey.fields:
        present = share_of(field.present, survey.looked_at)
        cut = share_of(field.cut, field.present) if field.cut else "-"
        yield printable(field.name), field.kind, _shape(field), present, cut


def _size_rows(survey: Survey) -> Iterator[tuple[str, ...]]:
    for field in survey.fields:
        for name, spread in field.sizes.items():
            cells = (number(value) for value in (spread.low, spread.median, spread.high))
            yield (f"{printable(field.name)}: {name}", *cells)


def _shape(field: FieldSurvey) -> str:
    return f"{field.dtype} [{', '.join(map(str, field.shape))}]"


def _formats(field: FieldSurvey) -> str:
    counts = ", ".join(f"{name} {number(count)}" for name, count in field.formats.items())
    return f"{printable(field.name)}: {counts}"


def _duplicates(field: FieldSurvey) -> str:
    found = field.duplicates
    if found is None:
        return ""
    which = f"{'the first ' if found.is_sample else ''}{number(found.texts)} records"
    lines = [
        f"{printable(field.name)}: of {which}, {number(found.sharing)} share their text with "
        f"another; different texts: {number(found.different)}"
    ]
    for count, text in field.frequent:
        lines.append(f"  {number(count)} x {shortened(printable(text), _WIDEST)}")
    return "\n".join(lines)


def _bad(survey: Survey) -> str:
    if not survey.reasons:
        return ""
    rows = [
        (
            number(reason.count),
            printable(reason.field) or "(record)",
            shortened(printable(reason.example), _WIDEST),
        )
        for reason in survey.reasons[:_REASONS]
    ]
    table = _aligned([("bad", "field", "why"), *rows], left=3)
    more = len(survey.reasons) - len(rows)
    rest = f"\nand {number(more)} other reasons" if more else ""
    first = "\n".join(f"  {shortened(printable(str(f)), 200)}" for f in survey.first_bad)
    return f"{table}{rest}\n\nthe first of them:\n{first}"


def _lost(survey: Survey) -> str:
    if not survey.lost:
        return ""
    first = "\n".join(f"  {shortened(printable(str(f)), 200)}" for f in survey.lost[:_LOST])
    more = len(survey.lost) - _LOST
    rest = f"\n  and {number(more)} more" if more > 0 else ""
    return f"lost in whole shards:\n{first}{rest}"


def _aligned(rows: Sequence[Sequence[str]], *, left: int) -> str:
    """Columns; the first `left` of them begin at one place, the others end at one."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = (
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
