"""Removal of characters that a voice cannot speak, with a warning."""

import logging
import re
import time

import pytest

from talkinghead.errors import UsageError
from talkinghead.speech.tts.text.text_cleaner import TextCleaner


def _cleaned(text, language="en"):
    return " ".join(TextCleaner(language).sentences(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello \N{GRINNING FACE}\N{VARIATION SELECTOR-16} there!", "Hello there!"),
        ("one\N{WAVING HAND SIGN}\N{EMOJI MODIFIER FITZPATRICK TYPE-5}two", "one two"),
        ("**Yes**, `this` is _it_ and snake_case.", "Yes, this is it and snake case."),
        ("# Title\n\nText", "Title Text"),
        ("It is #1: 3 * 4 & more", "It is number 1: 3 times 4 and more"),
        ("It is: 3 = 12 °C, 50 %, more", None),
        ("co\N{SOFT HYPHEN}op\x07erate", "cooperate"),
        ("Tell me \u4f60\u597d now", "Tell me now"),
        ("El ni\u00f1o \u00bfqu\u00e9? Na\u0308he, \u0142\u00f3d\u017a, \u1ec7", None),
        ("[[b]] {x}", "b x"),
        ("\u2026 \u2192 !", ""),
        ("Step \u2460, \u0663\u0664 and \u247d.", "Step 1, 34 and 10."),
        (
            "x\u00b2, 2m\u00b3, note\u00b2 and H\u2082O",
            "x squared, 2m cubed, note\u00b2 and H\u2082O",
        ),
        ("\uff28\uff45\uff4c\uff4c\uff4f \U0001d407\U0001d422", "Hello Hi"),
        ("A \x1b[31mred\x1b[0m word", "A red word"),
        ("$1m, $2.5bn and $3K", "1 million dollars, 2.5 billion dollars and 3 thousand dollars"),
        (
            "$5-10, $100-$200 or \u00a310\u2013\u00a320k",
            "5 to 10 dollars, 100 to 200 dollars or 10 to 20 thousand pounds",
        ),
        ("\u00a5500, \u20b920-30, 5\u20a9", "500 yen, 20 to 30 rupees, 5 won"),
        ("$1,000-2,000", "1,000 to 2,000 dollars"),
        ("10 \u03bcm, 5 \u03a9 and 2k\u2126", "10 \u00b5m, 5 ohms and 2 kilohms"),
        ("US$5m, A$1 or $.50", "5 million US dollars, 1 Australian dollar or 50 cents"),
        ("2*3*4, *5* and 5-3=2", "2 times 3 times 4, 5 and 5-3=2"),
        ("1 *2* 3, $5-10-15", "1 2 3, 5 dollars-10-15"),
        ("10km/h, 5 m/s, and/or", "10 kilometers per hour, 5 m per second, and or"),
        ("5$ 10 times, or 10\u20ac", "5 dollars 10 times, or 10 euros"),
        ("Call 555-1234, pages 10-12", "Call 555-1234, pages 10 to 12"),
    ],
)
def test_english_text_is_cleaned(text, expected):
    assert _cleaned(text) == (text if expected is None else expected)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("ru", "\u041f\u0440\u0438\u0432\u0435\u0442, Linux!"),
        ("zh-cn", "\u4f60\u597d"),
        ("ja", "\u3053\u3093\u306b\u3061\u306f\u30b9\u30fc"),
        ("fa", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"),
        ("ru+f2", "\u043f\u0440"),
        ("rus", "\u041f\u0440"),
        ("zle/ru", "\u041f\u0440"),
        ("si", "\u0dc3\u0dd2"),
        ("el_GR", "\u03ba\u03b1\u03bb\u03b7\u03bc\u03ad\u03c1\u03b1"),
        (None, "\u4f60\u597d and \u041f\u0440\u0438"),
    ],
)
def test_letters_of_the_language_are_kept(language, text):
    assert _cleaned(text, language) == text
    is_known = language not in (None, "rus", "zle/ru", "si")
    assert is_known == ("\u10d0" not in _cleaned(f"{text} \u10d0", language))


@pytest.mark.parametrize(
    ("text", "language", "voice"),
    [
        (
            "\u4f60\u597d\uff0c\u4e16\u754c",
            "Chinese",
            "tts.voice=zh_CN-huayan-medium.onnx language=zh",
        ),
        ("\u4e16\u754c\u306e\u3053\u3068", "Japanese", "tts=espeak tts.voice=ja language=ja"),
        (
            "\u041f\u0440\u0438\u0432\u0435\u0442, Bob",
            "Cyrillic",
            "tts.voice=ru_RU-irina-medium.onnx",
        ),
        ("\u10d0\u10d1", "Georgian", "ka_GE-natia-medium"),
        ("\u13a0\u13a1", "Cherokee", "a voice of the language of the text"),
    ],
)
def test_text_of_another_script_is_refused_with_a_voice_that_can_speak_it(text, language, voice):
    with pytest.raises(UsageError, match=re.escape(language)) as caught:
        TextCleaner("en-us").check(f"<p>{text}</p>")
    assert voice in str(caught.value)


def test_text_without_words_is_refused_and_other_text_is_accepted():
    with pytest.raises(UsageError, match="no letter or digit"):
        TextCleaner("en").check("\u2026 <break/> \N{GRINNING FACE}")
    for language, text in (("en", "Hello \u4f60\u597d"), ("zh", "\u4f60\u597d"), (None, "\u10d0")):
        TextCleaner(language).check(text)


def test_removed_characters_are_logged_once(caplog):
    cleaner = TextCleaner("en")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            list(cleaner.sentences("Hi \N{GRINNING FACE} \u4f60. **Bold**\u200d."))
    assert [record.getMessage() for record in caplog.records] == [
        "characters that the voice cannot speak are left out, such as \u4f60 \N{GRINNING FACE}"
    ]


def test_sentences_are_single_lines_of_bounded_length():
    sentences = list(TextCleaner("en").sentences("One\ntwo\u2028three\rfour. " + "word " * 20_000))
    assert sentences[0] == "One two three four."
    assert len(sentences) > 100
    assert all(len(s) <= 250 and s.isprintable() for s in sentences)


@pytest.mark.parametrize("text", ["1-{}-", "$1-{}-", "US$1-{},1-"])
def test_long_numbers_are_read_in_linear_time(text):
    started = time.process_time()
    list(TextCleaner("en").sentences(text.format("1" * 40_000)))
    assert time.process_time() - started < 2
