"""Splitting of text into sentences, independent of the pieces it arrives in."""

# ruff: noqa: RUF001 - punctuation of other scripts resembles ASCII.

import time

import pytest

from talkinghead.speech.sentences import split_reply, split_sentences

TEXTS = {
    "abbreviations": (
        "en",
        "Dr. Smith paid 3.5 dollars. He left at 5 p.m. Then he slept, e.g. here.",
        ["Dr. Smith paid 3.5 dollars.", "He left at 5 p.m.", "Then he slept, e.g. here."],
    ),
    "quotes": (
        "en",
        '"What?" she asked. "No." Really?! Yes... maybe. (Fine.) Ok',
        ['"What?" she asked.', '"No."', "Really?!", "Yes... maybe.", "(Fine.)", "Ok"],
    ),
    "small letters": ("en", "hello there. how are you?", ["hello there.", "how are you?"]),
    "lists": (
        "en",
        "Two:\n- apples\n- pears, and\nmore\n\nThe end. 1. One. 2. Two.",
        ["Two:", "- apples", "- pears, and more", "The end.", "1. One.", "2. Two."],
    ),
    "German": (
        "de",
        "Das kostet z.B. 3,5 Mio. Euro. Herr Dr. Müller kam am 3. Mai. Gut.",
        ["Das kostet z.B. 3,5 Mio. Euro.", "Herr Dr. Müller kam am 3. Mai.", "Gut."],
    ),
    "Chinese": ("zh", "你好。「你好吗？」我很好！", ["你好。", "「你好吗？」", "我很好！"]),
    "Hindi": ("hi", "यह एक वाक्य है। यह दूसरा है।", ["यह एक वाक्य है।", "यह दूसरा है।"]),
    "unknown language": ("tlh", "Hello. Dr. Who? Yes.", ["Hello.", "Dr. Who?", "Yes."]),
    "emoji": (None, "😀 Hello! How are you? 👍", ["😀 Hello!", "How are you?", "👍"]),
    "nothing": ("en", " \n ", []),
}


@pytest.mark.parametrize(("language", "text", "sentences"), TEXTS.values(), ids=TEXTS)
def test_sentences_do_not_depend_on_piece_boundaries(language, text, sentences):
    assert list(split_sentences([text], language)) == sentences
    assert list(split_sentences(text, language)) == sentences
    words = text.replace(" ", " |").split("|")
    assert list(split_sentences(words, language)) == sentences


def test_sentence_is_yielded_when_the_next_begins():
    taken = []

    def write():
        for piece in ("He", "llo. ", "How ", "are you? I", " am"):
            taken.append(piece)
            yield piece

    sentences = split_sentences(write())
    assert next(sentences) == "Hello."
    assert taken[-1] == "How "
    assert next(sentences) == "How are you?"
    assert taken[-1] == "are you? I"


@pytest.mark.parametrize("text", ["word " * 20_000, "x" * 100_000, "one, two " * 11_000])
def test_text_without_full_stops_is_split(text):
    sentences = list(split_sentences([text, *["more " * 50] * 4]))
    assert 80 < len(sentences[0]) <= 250
    assert max(map(len, sentences)) <= 250
    assert "".join("".join(sentences).split()) == "".join(text.split()) + "more" * 200


def test_long_sentence_is_split_at_a_comma():
    text = "It is long and long and long, it is long and long and long and long and long"
    assert list(split_sentences([text], max_length=60)) == text.replace(", ", ",|").split("|")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "The weather can be quite cold, or warm, in May. Bring a coat, please.",
            ["The weather can be quite cold,", "or warm, in May.", "Bring a coat, please."],
        ),
        ("Yes, it costs 1,000,000 euros. Good.", ["Yes, it costs 1,000,000 euros.", "Good."]),
        ("It is so. The others, I think, are not.", ["It is so.", "The others, I think, are not."]),
        ("\n- apples\n- pears", ["- apples", "- pears"]),
        ("", []),
    ],
)
def test_reply_starts_with_its_first_long_clause(text, parts):
    for size in (1, 5, 100):
        pieces = [text[start : start + size] for start in range(0, len(text), size)]
        assert list(split_reply(pieces)) == parts


def test_first_clause_of_a_reply_is_yielded_before_the_sentence_is_complete():
    pieces = iter(["The weather can be", " quite cold, or", " warm in May."])
    assert next(split_reply(pieces)) == "The weather can be quite cold,"
    assert next(pieces) == " warm in May."


def test_long_white_space_takes_little_time():
    started_s = time.perf_counter()
    assert list(split_reply([f"{' ' * 100_000}Hello."])) == ["Hello."]
    assert time.perf_counter() - started_s < 1


def test_unknown_language_is_reported_once(caplog):
    for _ in range(2):
        assert list(split_sentences(["Dr. Smith left. He ran."], "xq")) == [
            "Dr. Smith left.",
            "He ran.",
        ]
    assert caplog.text.count("language 'xq': no abbreviations are known") == 1


def test_region_of_a_language_is_ignored(caplog):
    text = "Das kostet ca. 3 Euro. Gut."
    assert list(split_sentences([text], "de_DE")) == list(split_sentences([text], "de"))
    assert not caplog.records


@pytest.mark.parametrize("row", [". ", "? ", "... ", "!) ", "a!) ", "[. "])
def test_rows_of_punctuation_are_split_with_few_checks(row, monkeypatch):
    pysbd = pytest.importorskip("pysbd")
    segment, calls = pysbd.Segmenter.segment, []

    def count(self, text):
        calls.append(text)
        return segment(self, text)

    monkeypatch.setattr(pysbd.Segmenter, "segment", count)
    text = row * (10_000 // len(row))
    sentences = list(split_sentences([text]))
    assert "".join(sentences).replace(" ", "") == text.replace(" ", "")
    assert len(calls) < 1000


def test_refused_ends_are_not_checked_again(monkeypatch):
    pysbd = pytest.importorskip("pysbd")
    segment, calls = pysbd.Segmenter.segment, []

    def count(self, text):
        calls.append(text)
        return segment(self, text)

    monkeypatch.setattr(pysbd.Segmenter, "segment", count)
    text = "Ask Dr. Smith or Mr. Jones about it, please. And then go."
    assert len(list(split_sentences(text))) == 2
    assert len(calls) == 3
