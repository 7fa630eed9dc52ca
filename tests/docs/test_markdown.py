"""Text of generated Markdown."""

import pytest

from docs.generate.docstrings import separate_lists
from docs.generate.markdown import NOT_RECORDED, cell, details, join, number, table


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (15.0, "15.0"),
        (0.05, "0.0500"),
        (108.6, "109"),
        (999.7, "1,000"),
        (1804.14, "1,804"),
        (1.9e-6, "1.90e-06"),
        (290448, "290,448"),
        (True, "yes"),
    ],
)
def test_numbers_have_three_significant_digits(value, text):
    assert number(value) == text


def test_missing_values_are_visible():
    assert cell(None) == cell("") == NOT_RECORDED


def test_cells_escape_tags_and_pipes_outside_of_code():
    assert cell("runs/<system> | `<name>`") == r"runs/&lt;system> \| `<name>`"


def test_a_table_has_one_line_for_each_row():
    assert table(("a", "b"), [(1, 2.5)]).splitlines() == [
        "| a | b |",
        "| --- | --- |",
        "| 1 | 2.50 |",
    ]


def test_empty_blocks_are_left_out():
    assert join("a", "", "b") == "a\n\nb"


def test_details_are_indented():
    assert details("title", "a\n\nb").splitlines()[2:] == ["    a", "", "    b"]


def test_lists_follow_an_empty_line():
    text = "Differs:\n* one\n  more\n* two\n\nEnd:\n\n* three"
    parts = ["Differs:", "", "* one", "  more", "* two", "", "End:", "", "* three"]
    assert separate_lists(text).splitlines() == parts
