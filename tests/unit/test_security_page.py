"""docs/security.md names a test for what it says; each of them is there."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAMED = re.findall(r"`(test_\w+\.py)(?:: ([\w-]+))?`", (ROOT / "docs/security.md").read_text())


def test_there_are_some():
    assert len(NAMED) > 20


@pytest.mark.parametrize("file, name", sorted(set(NAMED)))
def test_a_test_that_the_page_names_is_there(file, name):
    text = (ROOT / "tests/lab" / file).read_text()
    if "from escapes import" in text:
        text += (ROOT / "tests/lab/escapes.py").read_text()
    wanted = f"def {name}(" if name.startswith("test_") else f'"{name}": ' if name else ""
    assert wanted in text
