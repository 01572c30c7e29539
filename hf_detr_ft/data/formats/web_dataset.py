"""WebDataset: tar archives in which a sample's image and its JSON share a name, `000.jpg` and `000.json`.

The JSON has `objects`, as rows of the Hub have them, or is itself such an object or a list of objects. Members are
read by their content alone: none is unpacked under its own name, and links, devices and other files are not looked at.
"""

import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from hf_detr_ft.data.find_images import is_image
from hf_detr_ft.data.formats.coco_json import parse_json
from hf_detr_ft.data.formats.labelled import Faults, Labelled, OpenPhotos, Photos, Reading
from hf_detr_ft.data.formats.layout import SPLITS, Layout, Piece, Place, Tree, split_of
from hf_detr_ft.data.formats.objects_column import RawImage, place_objects, read_objects
from hf_detr_ft.data.formats.shards import list_shards, open_shard, shard_state
from hf_detr_ft.data.formats.unpacked import MOST_BYTES, measure_once, unpack_once, write_image
from hf_detr_ft.errors import DataError, first_line

MOST_JSON = 1 << 24
"""Largest JSON of one sample."""
MOST_RATIO = 100
"""Times that a compressed archive may grow: images hardly do, and JSON not as much."""


def find_web_dataset(tree: Tree) -> Layout | None:
    """The splits of a folder of shards, each of the split that its name or folder says."""
    files = tree.named(".tar", ".tar.gz", ".tgz")
    if not files or tree.images:
        return None
    found = {split_of(name) or "train" for name in files}
    splits = dict.fromkeys(sorted(found, key=SPLITS.index), Place(tree.root, tree.root))
    return Layout("webdataset", splits, f"{files[0]} is a shard")


def read_web_dataset(layout: Layout, open_photos: OpenPhotos = Photos) -> Reading:
    """The splits, whose images are unpacked into the cache of `datasets`, or stay where they are to be streamed.

    Raises:
        DataError: lists what is wrong with the shards.
    """
    root = next(iter(layout.splits.values())).annotations
    shards = {split: list[Path]() for split in layout.splits}
    for name in list_shards(root).named(".tar", ".tar.gz", ".tgz"):
        shards[split_of(name) or "train"].append(root / name)

    def write(folder: Path) -> None:
        for split, paths in shards.items():
            for number, (_, image, content, label) in enumerate(read_samples(paths)):
                name = write_image(folder / split, number, image, content)
                (folder / split / f"{name}.json").write_bytes(label)

    folder = root if layout.streamed else unpack_once([*chain(*shards.values())], write)
    faults, read, pieces = Faults(root), dict[str, list[RawImage]](), dict[str, tuple[Piece, ...]]()
    for split, paths in shards.items():
        images, photos = read.setdefault(split, []), open_photos(folder / split)
        found: list[tuple[str, Sequence[int], bytes]]
        if layout.streamed:
            samples = measure_once(paths, partial(read_samples, paths))
            counts = Counter(sample.shard for sample in samples)
            pieces[split] = tuple(Piece(path, None, counts[str(path)]) for path in paths)
            found = [(sample.file_name, sample.size, sample.label) for sample in samples]
        else:
            labels = sorted((folder / split).glob("*.json"))
            found = [(label.stem, (), label.read_bytes()) for label in labels]
        for file_name, size, label in found:
            with faults.at(f"sample {file_name!r}"):
                value: Any = parse_json(label, f"{file_name}.json")
                row = value if isinstance(value, dict) else {"objects": value}
                images.append((file_name, photos.size(file_name, size), read_objects(row)))
    placed = place_objects(read, faults)
    return {split: Labelled(placed[split], folder / split, pieces.get(split, ())) for split in placed}, None


def read_samples(shards: list[Path]) -> Iterator[tuple[Path, str, bytes, bytes]]:
    """Shard, image's name, image and JSON of each sample; those without either are left out."""
    for shard in shards:
        parts: dict[str, dict[str, tuple[str, bytes]]] = {}
        for name, content in _members(shard):
            folder, _, last = name.rpartition("/")
            sample = parts.setdefault(f"{folder}/{last.partition('.')[0]}", {})
            sample["json" if last.lower().endswith(".json") else "image"] = (name, content)
            if len(sample) == 2:
                yield shard, *sample["image"], sample["json"][1]
                sample.clear()
        lone = [name for name, sample in parts.items() if sample]
        if lone:
            raise DataError(f"{shard}: expected an image and a JSON of each sample, found one alone of {lone[0]!r}")


def _members(shard: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each image and JSON of a shard."""
    left = MOST_RATIO * shard_state(shard)[1] + MOST_JSON
    try:
        with open_shard(shard) as source, tarfile.open(fileobj=source, mode="r|*") as archive:
            for member in archive:
                left -= member.size
                if left < 0:
                    raise DataError(f"{shard}: unpacks to more than {MOST_RATIO} times its size; not read on")
                is_json = member.name.lower().endswith(".json")
                if not member.isreg() or not (is_json or is_image(member.name)):
                    continue
                if member.size > (MOST_JSON if is_json else MOST_BYTES):
                    raise DataError(f"{shard}: {member.name!r} has {member.size} bytes, too many for a sample")
                file = archive.extractfile(member)
                yield member.name, file.read() if file is not None else b""
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError) as error:
        raise DataError(f"{shard}: no tar archive that can be read: {first_line(error)}; download it again") from error
