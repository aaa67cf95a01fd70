"""A typed text → the same without what may tell a person or open a door. Pure.

    redact("Mail jane@corp.example or +44 20 7946 0958")  →  "mail <email> or <number>"

Wider than it need be, since a lost word costs a report little: any seven digits are a number, be they of a telephone, a
card or an account. Libraries know telephone numbers of a country, and a query does not say of which; tests compare with
one. Names of people are not known here: `least_sessions` keeps back what few have asked.
"""

import re
import unicodedata

LONGEST = 200
"""Characters of a text that are kept."""

_FORMAT = re.compile(r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")
"""Invisible characters, with which a number could be written past the patterns."""

_LABELS = r"(?:pass(?:word|wd|phrase)?|pwd|secret|token|credentials?|api[-_ ]?key|access[-_ ]?key|authorization)"

_PATTERNS = tuple(
    (re.compile(pattern, re.IGNORECASE), mark)
    for pattern, mark in (
        (r"-----BEGIN.*", "<secret>"),
        (rf"({_LABELS}\s*(?:[:=]\s*|\bis\s+)(?:bearer\s+|basic\s+)?)\S+", r"\1<secret>"),
        (r"\b[a-z][a-z0-9+.-]{0,20}://\S+", "<url>"),
        (r"(?<![^\s@<>])[^\s@<>]+@[^\s@<>]+", "<email>"),
        (r"((?:/home|/users|\\users)[/\\])[^\s/\\]+", r"\1<user>"),
        (r"\b(?:sk|rk|rdx|gh[a-z]|github_pat|glpat|xox[a-z]|pk_live|pk_test)[-_][\w-]{8,}", "<secret>"),
        (r"\b(?:hf|npm|pypi)[-_][a-z\d]{16,}", "<secret>"),
        (r"\b(?:akia|asia)[a-z\d]{12,}", "<secret>"),
        (r"\b(?:aiza|eyj)[\w-]{8,}(?:\.[\w-]+)*", "<secret>"),
        (r"(?<![\w+/=-])(?=[\w+/=-]*\d)(?=[\w+/=-]*[a-z])[\w+/=-]{20,}", "<secret>"),
        (r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.])", "<address>"),
        (r"(?<![\w:])(?=(?:[\da-f:]*\d))[\da-f]{1,4}(?:::?[\da-f]{1,4}){3,7}(?![\w:])", "<address>"),
        (
            r"(?:(?:\+|\b00)[\s().-]*\d(?:[\s()./·\-\u2010-\u2015]*\d){4,}|\d(?:[\s()./·\-\u2010-\u2015]*\d){6,})",
            "<number>",
        ),
    )
)


def normalise(text: str) -> str:
    """Return the text by which two queries are the same: NFKC, one case, single spaces, nothing invisible."""
    return " ".join(_FORMAT.sub("", unicodedata.normalize("NFKC", text)).casefold().split())


def redact(text: str) -> str:
    """Return the normalised text without addresses, numbers, secrets; at most LONGEST characters of it."""
    text = normalise(text)
    for pattern, mark in _PATTERNS:
        text = pattern.sub(mark, text)
    return text[:LONGEST]
