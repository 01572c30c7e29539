"""Training images that are read from shards as they come, divided among processes and workers, and shuffled."""

import logging
import math
from collections.abc import Iterator, Sequence
from itertools import chain, islice, repeat
from typing import Any, Literal

import numpy as np
import torch
from datasets import Dataset, IterableDataset
from datasets.distributed import split_dataset_by_node

from hf_detr_ft.data.dataset import read_column
from hf_detr_ft.data.formats.layout import Piece
from hf_detr_ft.data.formats.parquet_rows import read_images
from hf_detr_ft.data.formats.shards import shard_name
from hf_detr_ft.data.formats.web_dataset import read_samples
from hf_detr_ft.data.sampling import POOL, group_by_shape
from hf_detr_ft.data.transform import DetrTransform, Epoch

logger = logging.getLogger(__name__)

BUFFER = 500
"""Images, as they are compressed, that a reader holds to shuffle them."""
PIECES = 8
"""Pieces of shards in a part of an epoch, on average: those at its ends are read for the part beside it once more."""


class StreamedRows(torch.utils.data.IterableDataset):
    """Samples of a training split, whose images `datasets` reads from shards as they come.

    An epoch is cut into parts of equally many rows. Each worker of each process, a reader, has as many parts as the
    others, drawn anew for each epoch, reads them one after another and shuffles what it reads through a buffer. So the
    order is a function of the seed, the epoch and the numbers of processes and workers, and each image comes once. All
    readers give as many batches: blank images, which are not counted, fill up those of who has a row less.

    Args:
        rows: of `load_split`, without a transform; ids ascend, and their images are not read.
        pieces: where the images lie, in the order of their ids, which count from 1.
        transform: of the rows; has the running epoch.
        batch_size: of one process.
        process: index of this one, and how many there are.
        workers: of the data loader; 0 where the process reads by itself.
        order: `sequential`: that of the shards; else random, and with `group_by_length` in batches of like shapes.
        seed: of the order.
    """

    def __init__(
        self,
        rows: Dataset,
        pieces: Sequence[Piece],
        transform: DetrTransform,
        *,
        batch_size: int,
        process: tuple[int, int] = (0, 1),
        workers: int | None = 0,
        order: Literal["random", "sequential", "group_by_length"] | str = "random",
        seed: int = 0,
    ) -> None:
        self.rows, self.transform, self.order = rows.with_format(None), transform, order
        self.batch_size, self.workers = batch_size, workers or 1
        self._passed = Epoch()
        self._ids = np.array(read_column(rows, "image_id"), dtype=np.int64)
        self.readers = {"processes": process[1], "workers": self.workers}
        """The numbers that the order depends on."""
        readers = process[1] * self.workers
        if len(pieces) < readers and process[0] == 0:
            logger.warning(
                "data.streaming: the training images lie in %d row groups or archives, which %d processes and workers "
                "read: some read the same. Write more and smaller ones, or lower training.dataloader_num_workers.",
                *(len(pieces), readers),
            )
        of_each = max(1, len(pieces) // (PIECES * readers))
        parts = np.array_split(self._ids, readers * of_each)
        self.batches = self.workers * math.ceil(of_each * max(map(len, parts)) / batch_size)
        """Batches of an epoch of each process."""
        ends = [(int(part[0]), int(part[-1])) if len(part) else (1, 0) for part in parts]
        images = IterableDataset.from_generator(read_parts, gen_kwargs={"parts": ends, "pieces": tuple(pieces)})
        shuffled = images if order == "sequential" else images.shuffle(seed, buffer_size=BUFFER)
        self._images = split_dataset_by_node(shuffled, *process)

    def __len__(self) -> int:
        """Samples of an epoch of each process, with those that fill batches up."""
        return self.batches * self.batch_size

    def begin_epoch(self, epoch: int, passed: int = 0) -> None:
        """Called before an epoch's first batch is drawn, in the process that has the readers.

        Args:
            epoch: from 0.
            passed: batches of it that an earlier run has had; blank ones stand in their places.
        """
        self._passed.set(passed)
        if self.order != "sequential":  # the epoch alone would shuffle the parts
            self._images.set_epoch(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = torch.utils.data.get_worker_info()
        passed = math.ceil((self._passed.get() - (0 if worker is None else worker.id)) / self.workers) * self.batch_size
        rows = self._in_batches(self._with_rows(self._images))
        for place, row in enumerate(islice(chain(rows, repeat(None)), len(self) // self.workers)):
            yield self.transform.blank(0, "") if row is None or place < passed else self.transform.sample_or_blank(row)

    def _with_rows(self, images: IterableDataset) -> Iterator[dict[str, Any]]:
        """The rows of those images that the split has, with their content."""
        for image in images:
            place = int(np.searchsorted(self._ids, image["image_id"]))
            if place < len(self._ids) and self._ids[place] == image["image_id"]:
                row = self.rows[place]
                yield {**row, "image": {"path": f"{image['shard']}: {row['file_name']}", "bytes": image["content"]}}

    def _in_batches(self, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Rows in an order in which those of a batch have like shapes, where that is asked for."""
        if self.order != "group_by_length":
            yield from rows
        while pool := list(islice(rows, POOL * self.batch_size)):
            ids, ratios = ([row[name] for row in pool] for name in ("image_id", "aspect_ratio"))
            shapes = self.transform.shapes(ids, ratios)
            for batch in group_by_shape(np.arange(len(pool)), shapes, self.batch_size):
                yield from (pool[place] for place in batch)


def read_parts(parts: list[tuple[int, int]], pieces: tuple[Piece, ...]) -> Iterator[dict[str, Any]]:
    """Ids, shards and contents of the images whose ids are within parts, first and last included.

    Raises:
        DataError: a shard cannot be read.
    """
    for first, last in parts:
        end = 0
        for piece in pieces:
            start, end = end + 1, end + piece.images
            if start > last or end < first:
                continue
            read = read_images(piece.path, piece.group) if piece.group is not None else read_samples([piece.path])
            for image_id, (_, _, content, *_) in enumerate(read, start):
                if image_id > last:
                    break
                if image_id >= first:
                    yield {"image_id": image_id, "shard": shard_name(piece.path), "content": content}
