"""Word error rate of a transcript."""

import re


def word_error_rate(text, reference):
    """Return insertions, deletions and substitutions relative to the reference's words."""
    words, expected = (re.sub(r"[^a-z' ]", " ", t.lower()).split() for t in (text, reference))
    row = range(len(expected) + 1)
    for i, word in enumerate(words, 1):
        last, row = row, [i]
        for j, other in enumerate(expected, 1):
            row.append(min(last[j] + 1, row[-1] + 1, last[j - 1] + (word != other)))
    return row[-1] / len(expected)
