"""Make untrusted text safe for a terminal and for one line of a log.

Terminals obey control characters (C0, C1, DEL), bidirectional ones (U+061C, U+200E to U+2069) change the order in which
text is shown (https://www.unicode.org/reports/tr36/#Bidirectional_Text_Spoofing), and many programs break lines at
U+2028 and U+2029. None of them is printable to Python.
"""

from __future__ import annotations

import json


def shown(text: str) -> str:
    """Return the text on one line, with ``?`` for each unprintable character."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)


def shown_lines(text: str) -> str:
    """Return a text of several lines likewise."""
    return "\n".join(map(shown, text.split("\n")))


def dumps(value: object, *, ascii: bool = False) -> str:
    """Return the value as one line of JSON, with unprintable characters escaped as ``\\uXXXX``.

    :param ascii: escape all characters outside ASCII.
    """
    line = json.dumps(value, ensure_ascii=ascii)
    return line if line.isprintable() else "".join(char if char.isprintable() else _escaped(char) for char in line)


def _escaped(char: str) -> str:
    # JSON does not escape DEL.
    return "\\u007f" if char == "\x7f" else json.dumps(char)[1:-1]
