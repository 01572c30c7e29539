import pytest

from hf_detr_ft.plots.text_layout import UNKNOWN, is_readable, place_labels, readable, shorten, text_width, wrap


@pytest.mark.parametrize("text", ["balloon", "größe", "шар", "λόγος", "بالون", ""])
def test_letters_that_the_font_has(text: str) -> None:
    assert is_readable(text)
    assert readable(text) == text


def test_letters_that_it_lacks_become_squares_and_breaks_become_spaces() -> None:
    assert not is_readable("気球")
    assert readable("気球 1\n\t.jpg") == f"{UNKNOWN}{UNKNOWN} 1 .jpg"


def test_shortening_keeps_both_ends_and_as_much_as_fits() -> None:
    name = "a_very_long_name_of_a_photo_0123456789.jpg"
    for width in (60, 100, 200):
        short = shorten(name, 14, width)
        head, tail = short.split("…")
        assert name.startswith(head) and name.endswith(tail)
        assert 0.8 * width < text_width(short, 14) <= width
    assert shorten(name, 14, 1000) == name
    assert shorten(name, 14, 1) == "…"
    assert text_width(name, 14, bold=True) > text_width(name, 14)


def test_lines_hold_what_fits_and_something_too_wide_stands_alone() -> None:
    assert wrap([40, 40, 40], width=100, gap=10) == [[0, 1], [2]]
    assert wrap([40, 50, 40], width=100, gap=10) == [[0, 1], [2]]
    assert wrap([200, 10, 10], width=100, gap=10) == [[0], [1, 2]]
    assert wrap([], width=100, gap=10) == []


def test_a_label_is_above_its_box_else_below_else_inside() -> None:
    def place(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        ((variant, area),) = [place for place in place_labels([box], [[(30, 10)]], 100, 100) if place is not None]
        assert variant == 0
        return area

    assert place((20, 50, 60, 80)) == (20, 40, 50, 50)
    assert place((20, 5, 60, 80)) == (20, 80, 50, 90)
    assert place((20, 5, 60, 95)) == (20, 5, 50, 15)
    assert place((90, 50, 99, 80)) == (70, 40, 100, 50), "moved inside the picture"


def test_later_labels_yield_take_a_shorter_variant_or_go_without() -> None:
    box = (0.0, 10.0, 50.0, 20.0)
    sizes = [(50.0, 10.0), (20.0, 10.0)]
    places = place_labels([box] * 5, [sizes] * 5, 50, 30)
    assert [place and place[0] for place in places] == [0, 0, 0, None, None]
    places = place_labels([box] * 3, [[(30.0, 10.0), (20.0, 10.0)]] * 3, 50, 20)
    assert [place and place[0] for place in places] == [0, 0, 1]
    assert place_labels([box], [[(60.0, 10.0)]], 50, 30) == [None]
