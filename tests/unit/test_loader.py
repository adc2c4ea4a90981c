"""Batches: the same from any step on, image and mask together."""

import pickle

import numpy as np
import pytest
import torch
from datasets import write_gta5

from dabench.data.domain import open_domain
from dabench.data.inputs import network_input
from dabench.data.loader import (
    Augment,
    SeededBatches,
    TrainingFrames,
    steps_per_epoch,
    training_batches,
)
from dabench.data.prepare import MEAN, STD, Prepared, prepare

ALL = Augment(jitter=True, flip=True, crop=(8, 12))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loader")
    write_gta5(folder / "gta5", frames=9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DABENCH_CACHE", str(folder / "cache"))
        return prepare(open_domain("gta5", folder / "gta5").frames("train"), (16, 24))


def batches(prepared, augment=ALL, first=0, last=6, workers=0, seed=3):
    return list(
        training_batches(
            prepared, augment, batch=2, seed=seed, first=first, last=last, workers=workers,
            pin_memory=False,
        )
    )  # fmt: skip


def same(ours, theirs):
    return all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and a.names == b.names
        for a, b in zip(ours, theirs, strict=True)
    )


def test_a_run_that_starts_later_sees_the_same_batches(prepared):
    whole = batches(prepared)
    assert same(whole[2:], batches(prepared, first=2))
    assert same(whole, batches(prepared, workers=1))
    assert not same(whole, batches(prepared, seed=4))


def test_one_thread_makes_a_batch_as_in_a_loaders_process(prepared, monkeypatch):
    threads, real = [], TrainingFrames.__getitem__

    def item(frames, key):
        threads.append(torch.get_num_threads())
        if key == (1, 0):
            raise OSError("gone")
        return real(frames, key)

    monkeypatch.setattr(TrainingFrames, "__getitem__", item)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with pytest.raises(OSError, match="gone"):
            batches(prepared)
        assert set(threads) == {1}
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_the_global_random_state_is_left_alone(prepared):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    batches(prepared)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_frame_comes_once_per_epoch():
    keys = [key for batch in SeededBatches(7, 2, 0, 0, 6) for key in batch]
    assert [epoch for epoch, _ in keys] == [0] * 6 + [1] * 6
    for epoch in (0, 1):
        indices = [index for when, index in keys if when == epoch]
        assert len(set(indices)) == 6
    assert [index for _, index in keys[:6]] != [index for _, index in keys[6:]]


def test_fewer_frames_than_a_batch_are_repeated():
    assert steps_per_epoch(3, 8) == 1
    (batch,) = SeededBatches(3, 8, 0, 0, 1)
    assert len(batch) == 8
    assert {index for _, index in batch} == {0, 1, 2}


def test_image_and_mask_move_together():
    ramp = np.arange(16 * 24, dtype=np.uint8).reshape(16, 24)
    images = np.repeat(ramp[None, ..., None], 3, axis=3)
    drawn = Prepared(("a",), images, ramp[None], (), ())
    for batch in batches(drawn, Augment(flip=True, crop=(8, 12))):
        assert torch.equal(batch.images[:, 0].long(), batch.labels)
        assert batch.labels.shape == (2, 8, 12)
    flips = [
        batch.labels[i, 0, 0] > batch.labels[i, 0, 1]
        for batch in batches(drawn, Augment(flip=True), last=20)
        for i in range(2)
    ]
    assert 0 < sum(map(bool, flips)) < len(flips)


def test_jitter_changes_colours_and_never_labels(prepared):
    plain = batches(prepared, Augment())
    jittered = batches(prepared, Augment(jitter=True))
    assert all(torch.equal(a.labels, b.labels) for a, b in zip(plain, jittered, strict=True))
    assert not any(torch.equal(a.images, b.images) for a, b in zip(plain, jittered, strict=True))


def test_normalisation_is_that_of_imagenet():
    images = torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)
    expected = (1 - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(network_input(images).flatten(), expected)
    assert network_input(images, normalised=False).flatten().tolist() == [1.0] * 3


@pytest.mark.parametrize("augment", [Augment(), ALL])
def test_frames_reach_processes_that_are_spawned(prepared, augment):
    frames = TrainingFrames(prepared, augment, seed=3)
    image, mask, name = pickle.loads(pickle.dumps(frames))[0, 1]
    for ours, theirs in zip(frames[0, 1], (image, mask, name), strict=True):
        assert (ours == theirs) if isinstance(ours, str) else torch.equal(ours, theirs)
