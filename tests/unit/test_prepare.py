"""Decoded once: same content, new content, interruption, two processes."""

import multiprocessing
import os
import shutil

import numpy as np
import pytest
from datasets import save_palette, save_photo, write_gta5
from PIL import Image

from dabench.base.errors import DataError
from dabench.data import prepare as module
from dabench.data.domain import open_domain
from dabench.data.prepare import prepare


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DABENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def frames(tmp_path):
    write_gta5(tmp_path / "gta5", frames=5)
    return open_domain("gta5", tmp_path / "gta5").frames("train")


def test_arrays_hold_the_files(frames, tmp_path):
    prepared = prepare(frames, (16, 24))
    assert prepared.names == ("00002", "00003", "00004", "00005")
    with Image.open(tmp_path / "gta5" / "images" / "00003.png") as image:
        np.testing.assert_array_equal(prepared.images[1], np.asarray(image))
    assert prepared.labels.shape == (4, 16, 24)
    half = prepare(frames, (8, 12))
    assert half.images.shape == (4, 8, 12, 3)
    assert set(np.unique(half.labels)) <= set(np.unique(prepared.labels))


def test_more_frames_than_are_decoded_at_a_time(frames, monkeypatch):
    whole = prepare(frames, (16, 24))
    monkeypatch.setattr(module, "FRAMES_EACH", 1)
    monkeypatch.setattr(module, "usable_cores", lambda: 3)
    monkeypatch.setattr(module, "VERSION", "anew")
    told = []
    again = prepare(frames, (16, 24), lambda *at: told.append(at))
    assert again.folder != whole.folder
    assert again.digest == whole.digest
    np.testing.assert_array_equal(again.images, whole.images)
    np.testing.assert_array_equal(again.labels, whole.labels)
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_files_are_read_once_until_they_change(frames, monkeypatch):
    prepare(frames, (16, 24))
    reads = []
    real = module.read_image
    monkeypatch.setattr(module, "read_image", lambda path: reads.append(path) or real(path))
    prepare(frames, (16, 24))
    assert reads == []
    save_photo(frames[0].image, seed=99)
    # However coarse the file system's clock is.
    os.utime(frames[0].image, (1, 1))
    again = prepare(frames, (16, 24))
    assert len(reads) == 4
    with Image.open(frames[0].image) as image:
        np.testing.assert_array_equal(again.images[0], np.asarray(image))


def test_frames_copied_elsewhere_are_the_same_and_changed_ones_are_not(frames, tmp_path):
    first = prepare(frames, (16, 24))
    assert prepare(frames, (8, 12)).digest != first.digest
    assert prepare(frames[::-1], (16, 24)).digest != first.digest
    shutil.copytree(tmp_path / "gta5", tmp_path / "moved")
    moved = open_domain("gta5", tmp_path / "moved").frames("train")
    for path in (moved[0].image, moved[1].label):
        os.utime(path, (1, 1))
    again = prepare(moved, (16, 24))
    assert again.folder != first.folder
    assert again.digest == first.digest
    save_photo(moved[0].image, seed=99)
    assert prepare(moved, (16, 24)).digest != first.digest


def test_a_label_that_differs_at_its_own_size_only_is_another(frames):
    first = prepare(frames, (4, 6))
    with Image.open(frames[0].label) as label:
        ids = np.array(label)
    # Between the pixels that are taken for the small size; as many bytes as before.
    ids[1, 1] = 7 if ids[1, 1] != 7 else 8
    save_palette(frames[0].label, ids)
    os.utime(frames[0].label, (1, 1))
    again = prepare(frames, (4, 6))
    np.testing.assert_array_equal(again.labels, first.labels)
    assert again.digest != first.digest


def test_an_interrupted_attempt_is_thrown_away(frames, monkeypatch, cache):
    def interrupt(done, of):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(frames, (16, 24), interrupt)
    assert list((cache / "prepared").glob("*.part"))
    assert len(prepare(frames, (16, 24))) == 4
    assert not list((cache / "prepared").glob("*.part"))


def _prepare(frames, queue):
    made = prepare(frames, (16, 24), lambda done, of: queue.put((os.getpid(), done)))
    assert len(made) == 4


def test_of_several_processes_one_works(frames):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=_prepare, args=(frames, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    seen = [queue.get() for _ in range(4)]
    assert len({pid for pid, _ in seen}) == 1
    assert queue.empty()


def test_pairs_that_differ_in_size_are_left_out_and_named(tmp_path):
    write_gta5(tmp_path / "gta5", frames=60)
    frames = open_domain("gta5", tmp_path / "gta5").frames("train")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(frames[3].label)
    prepared = prepare(frames, (16, 24))
    assert prepared.left_out == (frames[3].name,)
    assert len(prepared) == len(prepared.images) == len(frames) - 1
    assert prepared.frames[3].name == prepared.names[3] == frames[4].name


def test_many_such_pairs_are_an_error(frames):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(frames[0].label)
    with pytest.raises(DataError, match=r"1 of 4 pairs differ in size.*dabench data check"):
        prepare(frames, (16, 24))


def test_an_unreadable_frame_is_named_and_ends_the_rest(tmp_path, monkeypatch):
    write_gta5(tmp_path / "gta5", frames=60)
    frames = open_domain("gta5", tmp_path / "gta5").frames("train")
    monkeypatch.setattr(module, "usable_cores", lambda: 2)
    read, real = [], module.read_image
    monkeypatch.setattr(module, "read_image", lambda path: read.append(path) or real(path))
    frames[3].image.write_bytes(b"no image")
    with pytest.raises(DataError, match=f"{frames[3].image.name} cannot be read"):
        prepare(frames, (16, 24))
    assert len(read) <= 2 * module.FRAMES_EACH < len(frames)
