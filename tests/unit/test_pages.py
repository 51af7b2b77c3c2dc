"""docs/security.md and docs/http.md name a test for what they say; each of them is there."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def named_in(page):
    text = (ROOT / "docs" / page).read_text()
    return re.findall(r"`(test_\w+\.py)(?:: ([\w-]+))?`", text)


PAGES = {page: named_in(page) for page in ("security.md", "http.md")}


@pytest.mark.parametrize("page", PAGES)
def test_there_are_some(page):
    assert len(PAGES[page]) > 20


@pytest.mark.parametrize("file, name", sorted({pair for named in PAGES.values() for pair in named}))
def test_a_test_that_a_page_names_is_there(file, name):
    text = (ROOT / "tests/lab" / file).read_text()
    if "from escapes import" in text:
        text += (ROOT / "tests/lab/escapes.py").read_text()
    wanted = f"def {name}(" if name.startswith("test_") else f'"{name}": ' if name else ""
    assert wanted in text


def test_each_row_of_the_http_page_names_one():
    """Or is like the row above it."""
    heads = ("| ---", "| what |", "| field |", "| the app says")
    lines = (ROOT / "docs/http.md").read_text().splitlines()
    rows = [line for line in lines if line[:1] == "|" and not line.startswith(heads)]
    assert len(rows) > 40
    for row in rows:
        shown_by = row.rstrip("| ").rpartition("| ")[2]
        assert "`test_" in shown_by or shown_by == "the same", row
