"""Order in which images are drawn."""

from collections.abc import Callable, Iterator

import numpy as np
from datasets import Dataset
from torch.utils.data import Sampler

from hf_detr_ft.data.dataset import read_labels
from hf_detr_ft.data.transform import Epoch

POOL = 50
"""Batches whose images are exchanged among each other, as many as in Transformers' length-grouped sampler."""


class EpochSampler(Sampler[int]):
    """Random order, a function of seed and epoch alone, in which the images of a batch have like shapes.

    The order does not depend on what else was drawn, so an epoch that was interrupted goes on with the images that it
    had left, on any number of processes.

    Args:
        images: how many there are.
        batch_size: of one process.
        seed: of the order.
        epoch: the running epoch.
        shapes: gives what the running epoch makes of some images `[M]`, (height, width) `[M, 2]`; it is asked pool by
            pool, so that the first batch of a large data set need not wait for all. None for a wholly random order.
        batches_per_step: over all processes and accumulation. They get images of like shapes, too: no process waits for
            another, and a step has the same images however it is cut up.
        frequencies: how often each image comes in an epoch, `[N]`, on the average, of sum N; once each where None.
    """

    def __init__(
        self,
        images: int,
        batch_size: int,
        seed: int,
        epoch: Epoch,
        shapes: Callable[[np.ndarray], np.ndarray] | None = None,
        batches_per_step: int = 1,
        frequencies: np.ndarray | None = None,
    ) -> None:
        self.images = images
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = epoch
        self.shapes = shapes
        self.batches_per_step = batches_per_step
        self.frequencies = frequencies

    def __len__(self) -> int:
        return self.images

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng((self.seed, self.epoch.get()))
        order = generator.permutation(self.images)
        if self.frequencies is not None:
            order = generator.permutation(draw_often(order, self.frequencies, generator.random()))
        if self.shapes is None:
            yield from order.tolist()
            return
        shapes, step = np.zeros((self.images, 2), dtype=np.int64), self.batch_size * self.batches_per_step
        for start in range(0, self.images, POOL * step):
            pool = order[start : start + POOL * step]
            shapes[pool] = self.shapes(pool)
            for images in group_by_shape(pool, shapes, step):
                for batch in group_by_shape(images, shapes, self.batch_size):
                    yield from batch.tolist()


def draw_often(order: np.ndarray, frequencies: np.ndarray, start: float) -> np.ndarray:
    """Images of an epoch, `[N]`, as many as there are, each as often as its frequency says, rounded up or down.

    Args:
        order: all images, `[N]`, at random.
        frequencies: of each image, `[N]`, of sum N.
        start: a random number from 0 to below 1, at which counting starts.
    """
    ends = np.floor(np.cumsum(frequencies[order]) + start)
    ends[-1] = len(order) + np.floor(start)
    return np.repeat(order, np.diff(ends, prepend=0).astype(np.int64))


def rare_class_frequencies(dataset: Dataset, threshold: float) -> np.ndarray:
    """Frequencies of the images with which rare classes are learned, `[N]`, of sum N.

    The repeat factors of LVIS (Gupta et al. 2019, arXiv:1908.03195): sqrt(threshold / share of the images that have the
    class) for the rarest class of an image, at least 1; here divided by their mean.

    Args:
        dataset: of `load_split`, with any transform or none.
        threshold: share of the images below which a class is rare.
    """
    pairs = np.unique(np.stack(read_labels(dataset)), axis=1)
    shares = np.bincount(pairs[1]) / len(dataset)
    factors = np.ones(len(dataset))
    np.maximum.at(factors, pairs[0], np.sqrt(threshold / shares[pairs[1]]))
    return factors / factors.mean()


def group_by_shape(images: np.ndarray, shapes: np.ndarray, size: int) -> list[np.ndarray]:
    """Groups that need little padding: the first image that is left, and those that add least to it, one by one.

    Args:
        images: `[M]` indices, in random order, which decides between images that are equally good.
        shapes: (height, width) `[N, 2]` of all images.
        size: images of a group; the last one may have fewer.

    Returns:
        All indices.
    """
    groups = []
    while len(images):
        heights, widths = shapes[images].T
        free = np.arange(len(images)) > 0
        chosen, height, width = [0], heights[0], widths[0]
        while len(chosen) < size and free.any():
            # The padding of the group with each image in it, less what is the same for all of them.
            grown = np.maximum(heights, height) * np.maximum(widths, width)
            padding = np.where(free, grown * (len(chosen) + 1) - heights * widths, np.inf)
            best = int(padding.argmin())
            free[best] = False
            chosen.append(best)
            height, width = max(height, heights[best]), max(width, widths[best])
        groups.append(images[chosen])
        images = images[free]
    return groups


class SortedSampler(Sampler[int]):
    """Indices in a given order."""

    def __init__(self, order: list[int]) -> None:
        self.order = order

    def __iter__(self) -> Iterator[int]:
        return iter(self.order)

    def __len__(self) -> int:
        return len(self.order)
