"""Reading of CSV files as spreadsheet programs write them."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from talkinghead.errors import UsageError

_DELIMITERS = ",;\t|"
_LINE_END = re.compile(r"\r\n|\r|\n")
_ZIP = b"PK\x03\x04"
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True)
class TableRow:
    """A row of a table: its line in the file, and its values by column name."""

    line: int
    values: dict[str, str]


@dataclass(frozen=True)
class CSVTable:
    """A table with the names of its columns, in lower case, and its rows."""

    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]

    @property
    def found(self) -> str:
        """Description of the columns for error messages."""
        return f"the columns {', '.join(self.columns)}" if self.columns else "no columns"


def read_csv_table(path: Path, setting: str, expected: str) -> CSVTable:
    """Read a CSV file with a header.

    Values are separated by commas, semicolons, tabulators or vertical bars; Excel's first line
    `sep=;` is accepted. The text is UTF-8, UTF-16 or UTF-32, or else Windows-1252. Spaces around
    names and values, upper case in names, and rows without a value are ignored.

    Args:
        path: The file.
        setting: Name of the option of the file, for error messages.
        expected: What the file must contain, for error messages.

    Raises:
        UsageError: The file cannot be read, is not text, or a row has more values than the header.
    """
    try:
        text, delimiter, first = _without_separator_line(decode_text(path.read_bytes()))
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        _require_closed_quotes(text, delimiter)
        records = [(reader.line_num + first, record) for record in reader]
    except (OSError, ValueError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it is not CSV text: {error}"
        raise UsageError(f"{setting}={path} cannot be read ({reason}): {expected}") from error
    filled = [(line, cells) for line, record in records if any(cells := _stripped(record))]
    if not filled:
        return CSVTable((), ())
    header = tuple(name.lower() for name in filled[0][1])
    if twice := [name for name, count in Counter(filter(None, header)).items() if count > 1]:
        raise UsageError(f"{setting}={path} has the column {twice[0]} twice: {expected}")
    rows = []
    for line, cells in filled[1:]:
        if any(cells[len(header) :]):
            raise UsageError(
                f"{setting}={path}, line {line} has {len(cells)} values, the header "
                f"{len(header)}: put values that contain {delimiter!r} into quotes"
            )
        padded = [*cells, *[""] * len(header)]
        rows.append(TableRow(line, {n: v for n, v in zip(header, padded, strict=False) if n}))
    return CSVTable(tuple(filter(None, header)), tuple(rows))


def _require_closed_quotes(text: str, delimiter: str) -> None:
    """Refuse a quotation mark without its end, which would hide all rows that follow."""
    begins = [0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for _ in reader:
            begins.append(reader.line_num)
    except csv.Error as error:
        if "unexpected end" in str(error):
            raise ValueError(
                f"the quotation mark in line {begins[-1] + 1} is not closed"
            ) from error


def parse_number(text: str) -> float:
    """Return a number of a table, with a decimal point or a decimal comma.

    Raises:
        ValueError: The text is not a number.
    """
    return float(text.replace(",", ".") if text.count(",") == 1 and "." not in text else text)


def decode_text(data: bytes) -> str:
    """Return a text in UTF-8, UTF-16 or UTF-32, or else in Windows-1252.

    Raises:
        ValueError: The data are not text.
    """
    if data.startswith(_ZIP):
        raise ValueError("it is a zip archive, such as an Excel workbook: save it as CSV")
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return data.decode(encoding)
    if b"\0" in data:
        # UTF-16 without a mark: in ASCII text every second byte is zero.
        even, odd = data[::2].count(0), data[1::2].count(0)
        if max(even, odd) < len(data) // 4:
            raise ValueError("it contains binary data")
        return data.decode("utf-16-be" if even > odd else "utf-16-le")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("cp1252")
    if any(ord(character) < 32 and not character.isspace() for character in text):
        raise ValueError("it contains binary data")
    return text


def _without_separator_line(text: str) -> tuple[str, str, int]:
    """Return the text without the line `sep=;`, the delimiter, and the number of lines left out."""
    line, *rest = _LINE_END.split(text, maxsplit=1)
    if line.lower().startswith("sep=") and len(line) == len("sep=;"):
        return "".join(rest), line[-1], 1
    outside = "".join(line.split('"')[::2])
    # The delimiter that is most frequent outside quotes in the header.
    best = max(_DELIMITERS, key=lambda one: (outside.count(one), -_DELIMITERS.index(one)))
    return text, best, 0


def _stripped(record: list[str]) -> list[str]:
    return [value.strip() for value in record]
