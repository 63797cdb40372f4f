"""What `zoo/publish.py` writes beside a preset: the docstring of its recipe and the README's tables."""

import ast
from pathlib import Path

import pytest

from kerasdet.training.recipe import read

PUBLISH = read(Path(__file__).parents[1] / "zoo" / "publish.py")
RECIPE = '''"""Trains it.

    python recipe.py --data DATA

It has not been trained yet.
"""

TEXT = """Another
string."""
'''


def test_a_docstring_gets_another_last_paragraph():
    made = PUBLISH.with_last_paragraph(RECIPE, "It takes an hour, " + "and reaches a lot " * 8 + "in it.")
    doc, before = (ast.get_docstring(ast.parse(text)) for text in (made, RECIPE))
    assert doc.split("\n\n")[:-1] == before.split("\n\n")[:-1]
    last = doc.split("\n\n")[-1]
    assert last.startswith("It takes an hour, and") and last.endswith("in it.")
    assert max(map(len, made.splitlines())) <= 105 and made.endswith(RECIPE.partition('yet.\n')[2])
    assert PUBLISH.with_last_paragraph(made, "It has not been trained yet.") == RECIPE


def test_what_fails_while_it_is_published_leaves_the_preset(tmp_path):
    (tmp_path / "preset").mkdir()
    (tmp_path / "preset" / "card.json").write_text("old")
    with pytest.raises(ValueError, match="parity"), PUBLISH.as_before_if_it_fails(tmp_path / "preset"):
        (tmp_path / "preset" / "card.json").write_text("new")
        (tmp_path / "preset" / "weights").write_text("new")
        raise ValueError("parity")
    assert [path.read_text() for path in (tmp_path / "preset").iterdir()] == ["old"]
    with PUBLISH.as_before_if_it_fails(tmp_path / "preset"):
        (tmp_path / "preset" / "card.json").write_text("new")
    assert (tmp_path / "preset" / "card.json").read_text() == "new"


def test_the_readme_gets_other_tables_and_keeps_the_rest():
    # A backslash in a table is no reference to a group.
    text = "# A\n<!-- zoo:begin -->\n| old |\n| 1 |\n<!-- zoo:end -->\nthe end\n"
    made = PUBLISH.with_tables(text, r"| new \1 |")
    assert made == "# A\n<!-- zoo:begin -->\n| new \\1 |\n<!-- zoo:end -->\nthe end\n"
    with pytest.raises(ValueError, match=r"README\.md: it has no lines"):
        PUBLISH.with_tables("# A\n", "| new |")
