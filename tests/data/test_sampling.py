"""The order of an epoch: a function of seed and epoch alone, with little padding."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from datasets import Dataset

from hf_detr_ft.data.sampling import POOL, EpochSampler, draw_often, group_by_shape, rare_class_frequencies
from hf_detr_ft.data.transform import Epoch


def random_shapes(images: int) -> np.ndarray:
    return np.random.default_rng(0).integers(100, 400, (images, 2))


def padding(order: list[int], shapes: np.ndarray, batch_size: int) -> float:
    """Pixels of the padded batches over those of the images."""
    batches = [shapes[order[start : start + batch_size]] for start in range(0, len(order), batch_size)]
    return sum(len(batch) * batch.max(axis=0).prod() for batch in batches) / shapes.prod(axis=1).sum()


@pytest.mark.parametrize("shapes", [None, lambda images: random_shapes(37)[images]])
def test_an_epochs_order_depends_on_seed_and_epoch_alone(shapes: Callable[[np.ndarray], np.ndarray] | None) -> None:
    epoch = Epoch()
    sampler = EpochSampler(37, 4, seed=3, epoch=epoch, shapes=shapes)
    orders = []
    for number in (0, 1, 2):
        epoch.set(number)
        torch.manual_seed(number)
        orders.append(list(sampler))
    assert all(sorted(order) == list(range(37)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    epoch.set(1)
    torch.rand(100)
    assert list(EpochSampler(37, 4, seed=3, epoch=epoch, shapes=shapes)) == orders[1]
    assert list(EpochSampler(37, 4, seed=4, epoch=epoch, shapes=shapes)) != orders[1]


@pytest.mark.parametrize("batch_size", [2, 4, 8])
def test_batches_of_like_shapes_have_little_padding(batch_size: int) -> None:
    shapes = random_shapes(401)
    at_random = padding(list(EpochSampler(401, batch_size, 0, Epoch())), shapes, batch_size)
    grouped = padding(list(EpochSampler(401, batch_size, 0, Epoch(), shapes.__getitem__)), shapes, batch_size)
    assert grouped - 1 < (at_random - 1) / 3


def test_the_first_batch_asks_for_the_shapes_of_one_pool_alone() -> None:
    shapes, asked = random_shapes(1000), []
    order = iter(EpochSampler(1000, 4, 0, Epoch(), lambda images: (asked.append(len(images)), shapes[images])[1]))
    next(order)
    assert asked == [4 * POOL]
    assert len({*order}) == 999
    assert sum(asked) == 1000


def test_shapes_are_asked_for_in_every_epoch() -> None:
    epoch = Epoch()
    wide, tall = np.array([[100, 400]]), np.array([[400, 100]])
    by_epoch = [np.repeat([wide, tall], 20, axis=0)[:, 0], np.tile(np.concatenate([wide, tall]), (20, 1))]
    sampler = EpochSampler(40, 4, 0, epoch, lambda images: by_epoch[epoch.get()][images])
    for number in (0, 1):
        epoch.set(number)
        assert padding(list(sampler), by_epoch[number], 4) == 1.0


def test_a_step_has_the_same_images_however_it_is_cut_up() -> None:
    shapes = random_shapes(64)
    whole, cut = (list(EpochSampler(64, 8 // n, 0, Epoch(), shapes.__getitem__, batches_per_step=n)) for n in (1, 4))
    steps = [[set(order[start : start + 8]) for start in range(0, 64, 8)] for order in (whole, cut)]
    assert steps[0] == steps[1]
    assert padding(cut, shapes, 2) < padding(whole, shapes, 8)


def test_the_same_photos_do_not_always_meet() -> None:
    shapes, epoch, met = random_shapes(40), Epoch(), set()
    sampler = EpochSampler(40, 4, 0, epoch, shapes.__getitem__)
    for number in range(20):
        epoch.set(number)
        order = list(sampler)
        met |= {frozenset(order[start : start + 4]) for start in range(0, 40, 4)}
    assert len(met) > 80


def test_only_the_last_batch_is_short() -> None:
    groups = group_by_shape(np.arange(10), random_shapes(10), 4)
    assert [len(group) for group in groups] == [4, 4, 2]
    assert group_by_shape(np.arange(0), random_shapes(3), 4) == []


def test_the_first_image_takes_those_that_add_the_least_padding() -> None:
    shapes = np.array([[100, 100], [100, 300], [105, 100], [300, 100], [100, 97]])
    first, rest = group_by_shape(np.arange(5), shapes, 3)
    assert first.tolist() == [0, 4, 2]
    assert rest.tolist() == [1, 3]


def test_rare_classes_come_more_often_by_the_repeat_factors_of_lvis() -> None:
    labels = [[0], [0, 1, 1], [0], [0], [0], [0], [0, 0], []]
    rows = Dataset.from_dict({"objects": [{"label": each} for each in labels]})
    factors = np.array([1, np.sqrt(0.5 * 8), 1, 1, 1, 1, 1, 1])  # class 1 is on one of eight images
    frequencies = rare_class_frequencies(rows, 0.5)
    assert np.allclose(frequencies, factors / factors.mean())
    assert np.allclose(rare_class_frequencies(rows, 0.1), 1)


def test_an_epoch_keeps_its_length_and_each_image_comes_as_often_as_it_should_on_the_average() -> None:
    frequencies = np.array([0.4, 3.3, 0.7, 0.7, 0.4, 0.5])
    epoch, counts = Epoch(), np.zeros(6)
    for number in range(600):
        epoch.set(number)
        order = list(EpochSampler(6, 2, 1, epoch, frequencies=frequencies))
        assert len(order) == 6
        count = np.bincount(order, minlength=6)
        assert (np.abs(count - frequencies) < 1).all()
        counts += count
    assert np.allclose(counts / 600, frequencies, atol=0.06)
    epoch.set(7)
    shapes = random_shapes(6)
    grouped = EpochSampler(6, 2, 1, epoch, shapes.__getitem__, frequencies=frequencies)
    assert sorted(grouped) == sorted(EpochSampler(6, 2, 1, epoch, frequencies=frequencies)) == sorted(grouped)


def test_the_length_holds_for_large_sets() -> None:
    frequencies = np.random.default_rng(0).random(100_003) + 0.1
    frequencies /= frequencies.mean()
    for start in (0.0, 1e-9, 0.5, 1 - 1e-12):
        assert len(draw_often(np.arange(100_003), frequencies, start)) == 100_003
