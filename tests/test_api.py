"""docs/api.md is what its script makes of the sources."""

from __future__ import annotations

import pytest

from scripts import api


def test_the_page_is_what_the_script_makes() -> None:
    page = api.PAGE.read_text(encoding="utf-8")
    assert page == api.page(), "docs/api.md is out of date: python -m scripts.api"
    for module in api.PUBLIC:
        assert f"\n## {module}\n" in page
        for name in api.listed(module):
            assert f"\n| `{name}` | " in page


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Returns ``a``. And more.", "Returns `a`."),
        ("What\n:class:`~kbench.model.Head` is\n\nMore.", None),
        ("What\n:class:`~kbench.model.Head` is.\n\nMore.", "What `Head` is."),
        ("The types, e.g. text, of ``int | str``.", r"The types, e.g. text, of `int \| str`."),
        ("Is it so? Yes.", "Is it so?"),
        (None, None),
    ],
)
def test_the_line_of_a_name_is_its_first_sentence(text: str | None, line: str | None) -> None:
    if line is None:
        with pytest.raises(ValueError, match="Thing has no docstring that begins with a sentence"):
            api._first(text, "Thing")
    else:
        assert api._first(text, "Thing") == line
