from __future__ import annotations

import pytest

from talkinghead.csv_table import parse_number, read_csv_table
from talkinghead.errors import UsageError

TEXT = "face,audio,output\nface.jpg,speech.flac,a.mp4\n"
ROWS = [{"face": "face.jpg", "audio": "speech.flac", "output": "a.mp4"}]


def read(tmp_path, data: bytes | str):
    path = tmp_path / "list.csv"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return read_csv_table(path, "jobs", "give a CSV file")


@pytest.mark.parametrize(
    "data",
    [
        TEXT,
        TEXT.replace("\n", "\r\n"),
        TEXT.replace("\n", "\r"),
        TEXT.replace(",", ";"),
        TEXT.replace(",", "\t"),
        TEXT.replace(",", " , ").replace("face,", "Face,"),
        TEXT.replace("face,audio", '"Face","AUDIO"'),
        f"sep=;\n{TEXT.replace(',', ';')}",
        f"sep=\t\n{TEXT.replace(',', chr(9))}",
        f"\n{TEXT},,\n;\n\n".replace(";", ",,"),
        TEXT.replace("\n", ",,\n"),
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        TEXT.encode("utf-16-le"),
        TEXT.encode("utf-16-be"),
        TEXT.encode("utf-32"),
    ],
)
def test_files_of_spreadsheet_programs_are_read(tmp_path, data):
    table = read(tmp_path, data)
    assert [row.values for row in table.rows] == ROWS


def test_text_that_is_not_utf8_is_windows_1252(tmp_path):
    table = read(tmp_path, "clip,emotion\nJos\u00e9,joy\n".encode("cp1252"))
    assert table.rows[0].values["clip"] == "Jos\u00e9"


def test_rows_have_their_line_numbers_in_the_file(tmp_path):
    table = read(tmp_path, 'sep=;\n\nclip;text\n;\na;"two\nlines"\nb;c\n')
    assert [row.line for row in table.rows] == [6, 7]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04\x14\0\x06\0", "an Excel workbook: save it as CSV"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "binary data"),
        (bytes(range(1, 255)), "not CSV text"),
        ("face,audio\na,b,c\n", "line 2 has 3 values, the header 2: put values that contain ','"),
        ('a,b\n1,2\n"3,4\n5,6\n', "the quotation mark in line 3 is not closed"),
        ("face,Face\n1,2\n", "has the column face twice"),
    ],
)
def test_other_files_are_refused(tmp_path, data, message):
    with pytest.raises(UsageError, match=f"jobs=.*{message}"):
        read(tmp_path, data)


def test_quotation_marks_within_a_value_are_accepted(tmp_path):
    table = read(tmp_path, 'a,b\n"Hi" she said,4\nfive" six,7"\n')
    assert [row.values["b"] for row in table.rows] == ["4", '7"']


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"No such file or directory\): give a CSV file"):
        read_csv_table(tmp_path / "none.csv", "jobs", "give a CSV file")


@pytest.mark.parametrize(("text", "number"), [("0.5", 0.5), ("0,5", 0.5), ("1e3", 1000)])
def test_numbers_have_a_decimal_point_or_comma(text, number):
    assert parse_number(text) == number
