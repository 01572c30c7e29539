"""Pages that are made from code agree with it."""

import runpy
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def test_the_page_of_recipe_fields_is_up_to_date() -> None:
    page = runpy.run_path(str(REPOSITORY / "docs" / "build_recipe_page.py"))["build_page"]()
    assert (REPOSITORY / "docs" / "recipe.md").read_text() == page, "run: python docs/build_recipe_page.py"
    assert page.count("\n| `") > 45
