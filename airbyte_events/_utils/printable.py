"""Text that others wrote, fit for a terminal and for one line of a log.

Control characters (C0, C1, DEL) are obeyed by terminals, bidirectional ones (U+061C, U+200E to U+2069) show text in
another order than it is read in (https://www.unicode.org/reports/tr36/#Bidirectional_Text_Spoofing), and U+2028 and
U+2029 end a line for many a reader. None of them is printable to Python.
"""

from __future__ import annotations

import json


def shown(text: str) -> str:
    """Return the text on one line, with ``?`` for each character that can't be printed."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)


def shown_lines(text: str) -> str:
    """Return the same of a text of several lines."""
    return "\n".join(map(shown, text.split("\n")))


def dumps(value: object, *, ascii: bool = False) -> str:
    """Return the value as one line of JSON that is printable: what is not stands there as ``\\uXXXX``.

    :param ascii: whether all that is not ASCII does, too.
    """
    line = json.dumps(value, ensure_ascii=ascii)
    return line if line.isprintable() else "".join(char if char.isprintable() else _escaped(char) for char in line)


def _escaped(char: str) -> str:
    # DEL is ASCII, and the one control character that JSON lets through.
    return "\\u007f" if char == "\x7f" else json.dumps(char)[1:-1]
