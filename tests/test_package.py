"""The wheel: every file that the package reads at run time is among its data."""

import os
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "hf_detr_ft"


def test_the_wheel_takes_every_file_of_the_package() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    taken = {path for pattern in settings["package-data"]["hf_detr_ft"] for path in PACKAGE.glob(pattern)}
    walked = (Path(folder) / name for folder, _, names in os.walk(PACKAGE, followlinks=True) for name in names)
    files = {path for path in walked if path.suffix != ".py" and path.parent.name != "__pycache__"}
    assert {PACKAGE / "py.typed", PACKAGE / "recipes" / "quickstart.yaml"} <= files
    assert not files - taken, "name them in [tool.setuptools.package-data]"
