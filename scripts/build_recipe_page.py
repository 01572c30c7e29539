"""Writes docs/recipe.md from the docstrings of a recipe's fields: `python scripts/build_recipe_page.py`."""

import ast
from itertools import pairwise
from pathlib import Path

from hf_detr_ft.recipe.fields import section_classes

REPOSITORY = Path(__file__).parents[1]
TRANSFORMERS = "https://huggingface.co/docs/transformers/main_classes/trainer#transformers.TrainingArguments"


def build_page() -> str:
    """The page as Markdown: a table of fields for each section."""
    sources = [REPOSITORY / "hf_detr_ft" / "recipe" / name for name in ("sections.py", "training_arguments.py")]
    nodes = [node for source in sources for node in ast.parse(source.read_text()).body]
    classes = {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}
    lines = [
        "# Every field of a recipe",
        "",
        "In YAML as `section: {field: value}`, on the command line as `--section.field value`; the command line wins.",
        "`hf-detr-ft train --help` prints the same. Made by `scripts/build_recipe_page.py` from the docstrings.",
    ]
    for section, config in section_classes().items():
        name = config.__name__
        summary = (ast.get_docstring(classes[name]) or "").split("\n\n", 1)[0]
        lines += ["", f"## {section}", "", summary, ""]
        if section == "training":
            lines += [f"Besides these, every field of [`TrainingArguments`]({TRANSFORMERS}) can be set.", ""]
        lines += ["| field | type | default | meaning |", "|---|---|---|---|"]
        for field, docstring in pairwise(classes[name].body):
            if isinstance(field, ast.AnnAssign) and isinstance(docstring, ast.Expr):
                lines.append(_row(field, ast.literal_eval(docstring.value)))
    return "\n".join(lines) + "\n"


def _row(field: ast.AnnAssign, meaning: str) -> str:
    annotation = ast.unparse(field.annotation).replace("|", "\\|")
    value, limits = field.value, ""
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "bounded":
        value, *bounds = value.args
        least, *most = map(ast.unparse, bounds)
        limits = f", {least} to {most[0].replace(' ** ', '^')}" if most else f", {least} or more"
    default = ast.unparse(value) if value is not None else ""
    default = {"field(default_factory=dict)": "{}", "None": "not set"}.get(default, default).strip("'")
    return f"| `{ast.unparse(field.target)}` | `{annotation}`{limits} | {default} | {' '.join(meaning.split())} |"


if __name__ == "__main__":
    (REPOSITORY / "docs" / "recipe.md").write_text(build_page())
