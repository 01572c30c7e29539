"""Text for terminals and pages: what steers them is written out, what people write stays."""

import pytest

from hf_detr_ft.formatting import has_half_characters, printable, printable_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", r"\x1b[2J"),
        ("cat\r", r"cat\r"),
        ("a\x07b\x00", r"a\x07b\x00"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x9b31m", r"\x9b31m"),
        ("photo\u202egpj.exe", r"photo\u202egpj.exe"),
        ("c\u200bat", r"c\u200bat"),
        ("c\u200dat", r"c\u200dat"),
        ("\u2066a\u2069", r"\u2066a\u2069"),
        ("a\u2028b", r"a\u2028b"),
        ("\ud800", r"\ud800"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_steers_a_terminal_is_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mug 2",
        "Tür",
        "猫\u3000犬",
        "عربة",
        "می\u200cخواهم",
        "👩\u200d🚒",
        "a\u0301",
        "☺\ufe0f",
        "C:\\x1b",
        "'\"<|`",
    ],
)
def test_what_people_write_stays(text: str) -> None:
    assert printable(text) == text


def test_lines_stay_lines() -> None:
    assert printable_lines("a\x1b\n\tb\r") == "a\\x1b\n\tb\\r"


def test_halves_of_characters_are_told_from_whole_ones() -> None:
    assert has_half_characters("a\ud83d") and not has_half_characters("a😀")
