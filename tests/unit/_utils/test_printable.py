"""What others wrote, on a terminal and in a log."""

from __future__ import annotations

import json
import unicodedata

import pytest

from airbyte_events._utils.printable import dumps, shown, shown_lines

CONTROLS = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) in {"Cc", "Cf", "Cs", "Zl", "Zp"}]


def test_no_control_character_of_any_kind_is_left() -> None:
    assert {"\x1b", "\x7f", "\x9b", "\u061c", "\u200e", "\u202e", "\u2066", "\u2028", "\ud800"} <= set(CONTROLS)
    text = "a".join(CONTROLS)
    assert shown(text) == "a".join("?" * len(CONTROLS))
    assert dumps(text).isprintable()
    assert dumps(text, ascii=True).isprintable()


@pytest.mark.parametrize("ascii", [False, True])
def test_json_means_the_same(ascii: bool) -> None:
    value = {"a\u202e": ["é 日本 😀 \u200d", "\x7f\x85\\u007f", 1.5, None]}
    assert json.loads(dumps(value, ascii=ascii)) == value


def test_letters_of_all_scripts_are_shown_as_they_are() -> None:
    assert shown("naïve 日本 שלום مرحبا 😀") == "naïve 日本 שלום مرحبا 😀"
    assert "日本" in dumps("日本")


def test_lines_stay_lines() -> None:
    assert shown_lines("a\n\tb\r\nc\x1b") == "a\n?b?\nc?"
