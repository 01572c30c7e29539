"""Installs a wheel in an environment of its own, outside the repository, and fine-tunes with it.

`python scripts/check_wheel.py dist/hf_detr_ft-*.whl`; `make package-check` builds the wheel first.
"""

import argparse
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "hf_detr_ft"
SHORT_RUN = ("--data.synthetic_images", "64", "--data.synthetic_val_images", "16", "--training.num_train_epochs", "1")
OPEN = """
import hf_detr_ft
from PIL import Image
from transformers import pipeline
detections = pipeline("object-detection", "runs/quickstart")(Image.new("RGB", (80, 64)), threshold=0.0)
assert detections[0]["label"] == "balloon", detections
print("pipeline() opens the run folder; the package is that of", hf_detr_ft.__file__)
"""


def missing_files(wheel: Path) -> list[str]:
    """Files of the package that the wheel lacks."""
    walked = (Path(folder) / name for folder, _, names in os.walk(PACKAGE, followlinks=True) for name in names)
    expected = {str(path.relative_to(REPOSITORY)) for path in walked if path.parent.name != "__pycache__"}
    return sorted(expected - set(zipfile.ZipFile(wheel).namelist()))


def main() -> int:
    """Exit status 0 where the wheel is whole, installs, trains, and its run folder opens."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    wheel = parser.parse_args().wheel.resolve()
    if missing := missing_files(wheel):
        print(f"{wheel.name} lacks {', '.join(missing)}; see [tool.setuptools.package-data] in pyproject.toml")
        return 1
    with TemporaryDirectory(prefix="hf_detr_ft-wheel-") as folder:
        venv.create(Path(folder) / "venv", with_pip=True)
        programs = Path(folder) / "venv" / ("Scripts" if os.name == "nt" else "bin")
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        install = ("-m", "pip", "install", "-q", "-c", REPOSITORY / "constraints.txt", wheel)
        for command in (
            (programs / "python", *install),
            (programs / "hf-detr-ft", "train", "quickstart", *SHORT_RUN),
            (programs / "python", "-c", OPEN),
        ):
            subprocess.run(command, check=True, cwd=folder, env=environment)
    print(f"{wheel.name}: installs, trains and opens outside the repository")
    return 0


if __name__ == "__main__":
    sys.exit(main())
