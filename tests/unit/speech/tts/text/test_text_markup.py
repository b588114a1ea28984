from __future__ import annotations

import time

import pytest

from talkinghead.speech.tts.text.english_symbols import spell_symbols
from talkinghead.speech.tts.text.text_markup import (
    MAX_BREAK_S,
    Pause,
    plain_text,
    split_at_breaks,
)


def paragraphs(text: str) -> list[str]:
    return [" ".join(part.split()) for part in plain_text(text).split("\n\n") if part.strip()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '<speak>Hello <break time="1s"/> <emphasis>world</emphasis></speak>',
            ["Hello", "world"],
        ),
        ('a<break strength="none"/>b', ["a b"]),
        (
            '<sub alias="World Wide Web">WWW</sub> &amp; <mark name="x"/>more',
            ["World Wide Web & more"],
        ),
        ('<say-as interpret-as="characters">ABC</say-as> <say-as>5</say-as>', ["A B C 5"]),
        ('<say-as interpret-as="telephone">555-1234</say-as>', ["5 5 5, 1 2 3 4"]),
        ("<?xml version='1.0'?><p>One</p><s>Two</s><!-- not --> three", ["One", "Two", "three"]),
        ("<details><summary>More</summary>Text</details>", ["More", "Text"]),
        ("<table><tr><td>A</td><td>B</td></tr></table>", ["A", "B"]),
        ("<audio src='a.wav'><desc>a dog</desc>Woof</audio>", ["Woof"]),
        ("<think>I should greet.</think>Hi<script>x=1</script>", ["Hi"]),
        ("<![CDATA[5 < 6 & so]]>", ["5 < 6 & so"]),
        ("&lt;speak&gt;Hi &lt;break/&gt; you&lt;/speak&gt;", ["Hi", "you"]),
        ("a.org?a=1&lt=2 &notsign; &eacute;&#233;", ["a.org?a=1&lt=2 &notsign; \u00e9\u00e9"]),
        ("I should greet.</think>Hi", ["Hi"]),
        ("a < b and c > d, x<y; <3", ["a < b and c > d, x<y; <3"]),
        ("if x<y and y>z, a<b and b>c", ["if x<y and y>z, a<b and b>c"]),
        ("Dear <name>, a Vec<String>.", ["Dear <name>, a Vec<String>."]),
        ("<mine>Hi</mine> <x:y>you</x:y> <other/>all", ["Hi you all"]),
        ("The element `<p>` and `&lt;b&gt;`", ["The element `<p>` and `<b>`"]),
        ("<![CDATA[a <b>bold</b> word]]> &lt;i&gt;", ["a <b>bold</b> word <i>"]),
        ("Hi <![CDATA[there", ["Hi there"]),
        ("Hi <!-- there", ["Hi there"]),
        ("<sub alias='a > b'>c</sub><sub>2</sub>", ["a > b2"]),
    ],
)
def test_elements_of_ssml_and_html_are_not_spoken(text, expected):
    assert paragraphs(text) == expected


@pytest.mark.parametrize(
    "text", ["use &lt;b&gt; here", "<![CDATA[a <b>word</b> # 1]]>", "&amp;lt;"]
)
def test_plain_text_is_not_cleaned_again(text):
    plain = plain_text(text)
    assert plain_text(plain) == plain


def test_breaks_over_the_limit_are_reported_once(caplog):
    parts = split_at_breaks("Hi" + '<break time="11s"/>a' * 3)
    assert parts[1::2] == [Pause(MAX_BREAK_S)] * 3
    assert len(caplog.records) == 1


def test_breaks_that_follow_each_other_are_limited_together(caplog):
    parts = split_at_breaks("Hi" + '<break time="9s"/>' * 1000 + "you")
    assert parts[1] == Pause(MAX_BREAK_S)
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# Title #\nText\n---\nmore", ["Title", "Text", "more"]),
        ("- one\n* [x] two\n+ three", ["one", "two", "three"]),
        ("> quoted\n> text", ["quoted text"]),
        ("See [the docs](https://a.org/x_(y)?q=1) and [it][1].", ["See the docs and it."]),
        ("![a cat](cat.png) sits[^1], it is said [2, 3].", ["a cat sits, it is said ."]),
        ("[1]: https://a.org 'A'\nText", ["Text"]),
        ("| a | b |\n|---|:-:|\n| 1 | 2 |", ["a, b", "1, 2"]),
        ("Run:\n```sh\nls -l\n```\nDone", ["Run:", "Done"]),
        ("```\nonly code\n```", ["only code"]),
        (r"2 \* 3", ["2 * 3"]),
        ("If $x^2$ is 4:\n\n$$E = mc^2$$", ["If x^2 is 4:", "E = mc^2"]),
        ("from $5 to $6=max", ["from $5 to $6=max"]),
        ("a ==marked word== and x == y == z", ["a marked word and x == y == z"]),
        ("# About C#\n## Two ##", ["About C#", "Two"]),
        ("see [1 [docs](a.html)", ["see [1 docs"]),
    ],
)
def test_markdown_is_not_spoken(text, expected):
    assert paragraphs(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Go to https://www.example.com:80/a/b?c=d#e, please.", "Go to example.com, please."),
        ("(see www.example.org/path).", "(see example.org)."),
        ("<https://example.com/x>", "example.com"),
        ("user:pw@ftp: ftp://user:pw@a.org/x", "user:pw@ftp: a.org"),
        ("example.com/a/b is short", "example.com is short"),
        ("mailto:joe@example.com", "joe@example.com"),
        ("x data:image/png;base64,iVBOR y", "x y"),
        ("and/or at 5 km/h", "and/or at 5 km/h"),
        ("Fine :-) thanks ;)", "Fine thanks "),
    ],
)
def test_addresses_are_reduced_to_hosts(text, expected):
    assert plain_text(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "$5, $1, $5.99, $0.50 and $2.05",
            "5 dollars, 1 dollar, 5 dollars 99, 50 cents and 2 dollars and 5",
        ),
        ("$3.5 million, \u20ac1,200", "3.5 million dollars, 1,200 euros"),
        ("on 2026-11-30", "on November 30, 2026"),
        ("5-10 people, 1/2 cup, and/or", "5 to 10 people, one half cup, and or"),
        ("555-1234-5 and 10-digit 3.5", "555-1234-5 and 10-digit 3.5"),
        (
            "5 < 6, x>2, a<b; File > Open",
            "5 less than 6, x greater than 2, a less than b; File > Open",
        ),
    ],
)
def test_symbols_of_english_text_are_words(text, expected):
    assert spell_symbols(text) == expected


@pytest.mark.parametrize(
    "part",
    [
        *("<think>", '<sub alias="a">', '<sub alias="', '<say-as interpret-as="digits" '),
        *("<![CDATA[", "<!--", "<?", "<!DOCTYPE ", "![", "[", "[^", "[1", "www.", "a-", "a."),
        *("$", "$a", "$$a=", "$a=$", "-", " ", "`a<", "<think>a</think", "# #", "- ", "[a](("),
    ],
)
@pytest.mark.parametrize("end", ["", "x"])
def test_time_is_linear_in_the_length_of_the_text(part, end):
    started_s = time.perf_counter()
    plain_text(f"{part * (70_000 // len(part))}{end}")
    assert time.perf_counter() - started_s < 1.25


@pytest.mark.parametrize(
    "text",
    [
        f"`{'<' * 100_000}",
        f"${'=' * 100_000}",
        f"---{' ' * 100_000}x",
        f"|-|{' ' * 100_000}x",
        f"# {'#' * 100_000}x",
    ],
)
def test_long_runs_of_a_character_take_little_time(text):
    started_s = time.perf_counter()
    plain_text(text)
    assert time.perf_counter() - started_s < 2.5
