"""Write the symbols in English text as the words that a reader would say."""

from __future__ import annotations

import re

_CURRENCIES = {
    **{"$": ("dollar", "dollars"), "£": ("pound", "pounds"), "€": ("euro", "euros")},
    **{"¥": ("yen", "yen"), "₹": ("rupee", "rupees"), "₩": ("won", "won")},
}
_SIGNS = "".join(_CURRENCIES)
_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August"),
    *("September", "October", "November", "December"),
)
_SCALES = {
    **{"k": "thousand", "m": "million", "mn": "million"},
    **{"b": "billion", "bn": "billion", "tn": "trillion"},
}
# Dollars of other countries, as in "US$5".
_COUNTRIES = {"US": "US ", "A": "Australian ", "CA": "Canadian ", "C": "Canadian "}
_COUNTRIES |= {"HK": "Hong Kong ", "NZ": "New Zealand ", "S": "Singapore "}
_AMOUNT = re.compile(
    rf"(?<!\d)(?:\b(?P<country>(?-i:{'|'.join(_COUNTRIES)}))(?=\$))?(?P<sign>[{_SIGNS}])\s?"
    r"(?P<number>\d+(?:,\d{3})*|(?=\.\d))(?:\.(?P<cents>\d\d)\b|(?P<part>\.\d+))?"
    r"(?:\s?(?P<scale>thousand|million|billion|trillion)\b|(?P<short>k|mn?|bn?|tn)\b)?",
    re.IGNORECASE,
)
# The lower end of a range of amounts: "$5-10", "$1.5-2 million", "£10-£20".
_LOWER_AMOUNT = re.compile(
    rf"(?<![\w.,-])(?P<country>[A-Z]{{0,2}})(?P<sign>[{_SIGNS}])\s?"
    r"(?P<number>\d+(?:,\d{3})*(?:\.\d+)?)"
    r"\s?[-\u2013]\s?(?:(?P=country)(?P=sign)\s?)?(?=\d++(?:[.,]\d++)*+(?!\w*-))"
)
_TRAILING_SIGN = re.compile(
    rf"(?<![\d{_SIGNS}.,])(\d+(?:,\d{{3}})*(?:\.\d+)?)\s?([{_SIGNS}])(?!\d)"
)
_DATE = re.compile(r"\b(?P<year>[12]\d{3})-(?P<month>0[1-9]|1[0-2])-(?P<day>0[1-9]|[12]\d|3[01])\b")
_RANGE = re.compile(
    r"(?<![\w.,-])(\d++(?:\.\d++)?+)\s?[-\u2013]\s?(\d++(?:\.\d++)?+)(?![\w.,-]*\d|-|\s?=)"
)
_FRACTIONS = {"1/2": "one half", "1/3": "one third", "1/4": "one quarter", "3/4": "three quarters"}
_FRACTION = re.compile(r"(?<![\w/.])(1/2|1/3|1/4|3/4)(?![\w/.])")
# A number or a single letter before and after a sign of comparison, with two spaces or none.
_COMPARISON = r"(?:(?<=\d)|(?<=\b[A-Za-z]))(?:{0}|\s+{0}\s+)(?=\d|[A-Za-z]\b)"
_REPLACEMENTS = (
    (re.compile(_COMPARISON.format("<")), " less than "),
    (re.compile(_COMPARISON.format(">")), " greater than "),
    (re.compile(r"(?<![\w#])#(?=\d)"), "number "),
    # Greek letters that are units; the voice reads the micro sign.
    (re.compile(r"(?<=\d)(\s?)\u03bc(?=[A-Za-z]{1,3}\b)"), "\\1\u00b5"),
    (re.compile(r"(?<=\d)\s?[\u03a9\u2126](?!\w)"), " ohms"),
    (re.compile(r"(?<=\d)\s?k[\u03a9\u2126](?!\w)"), " kilohms"),
    # Powers of numbers, variables and units; after words they are footnotes.
    (re.compile(r"(\d|\b\d*[A-Za-z]{1,2})\u00b2"), r"\1 squared"),
    (re.compile(r"(\d|\b\d*[A-Za-z]{1,2})\u00b3"), r"\1 cubed"),
    (re.compile(r"(?<=\d)(?:\s\*\s|\*)(?=\d)"), " times "),
    (re.compile(r"(?:(?<=\d)\s?|\b)km/h\b"), " kilometers per hour"),
    (re.compile(r"(?<=\d)(\s?[A-Za-z]{1,4})/h\b"), r"\1 per hour"),
    (re.compile(r"(?<=\d)(\s?[A-Za-z]{1,4})/min\b"), r"\1 per minute"),
    (re.compile(r"(?<=\d)(\s?[A-Za-z]{1,4})/s\b"), r"\1 per second"),
    (re.compile(r"(?<=[A-Za-z])/(?=[A-Za-z])"), " "),
    (re.compile(r"(?<=\w)\s?&\s?(?=\w)"), " and "),
)


def spell_symbols(text: str) -> str:
    """Return English text with amounts of money, dates, ranges and fractions as words.

    Numbers themselves are left to the voice.
    """
    text = _LOWER_AMOUNT.sub(r"\g<number> to \g<country>\g<sign>", text)
    text = _AMOUNT.sub(_amount, _TRAILING_SIGN.sub(r"\2\1", text))
    text = _DATE.sub(_date, text)
    text = _FRACTION.sub(lambda match: _FRACTIONS[match[1]], _RANGE.sub(_range, text))
    for pattern, replacement in _REPLACEMENTS:
        text = pattern.sub(replacement, text)
    return text


def _amount(match: re.Match[str]) -> str:
    one, many = (_COUNTRIES.get(match["country"], "") + n for n in _CURRENCIES[match["sign"]])
    number, cents, part = match["number"] or "0", match["cents"], match["part"] or ""
    if match["scale"] or match["short"]:
        decimals = f".{cents}" if cents else part
        scale = match["scale"] or _SCALES[match["short"].lower()]
        return f"{number}{decimals} {scale} {many}"
    if part:
        return f"{number}{part} {many}"
    name = one if number == "1" else many
    if cents is None or cents == "00":
        return f"{number} {name}"
    if number == "0":
        return f"{int(cents)} cents"
    return f"{number} {name} {'and ' if int(cents) < 10 else ''}{int(cents)}"


def _range(match: re.Match[str]) -> str:
    is_telephone_number = tuple(map(len, match.groups())) == (3, 4)
    return match[0] if is_telephone_number else f"{match[1]} to {match[2]}"


def _date(match: re.Match[str]) -> str:
    return f"{_MONTHS[int(match['month']) - 1]} {int(match['day'])}, {match['year']}"
