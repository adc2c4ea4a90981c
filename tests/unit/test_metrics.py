"""Scores against the official definition, on random label maps."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dabench.data.labels import IGNORE
from dabench.scoring.metrics import ConfusionMatrix, official_scores, paper_scores


def official_by_the_book(truths, predictions, classes):
    """cityscapesScripts' getIouScoreForLabel, pixel by pixel: tp / (tp + fp + fn)."""
    ious = []
    for label in range(classes):
        tp = fp = fn = 0
        for truth, prediction in zip(truths, predictions, strict=True):
            for t, p in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True):
                if t == IGNORE:
                    continue
                tp += t == label and p == label
                fp += t != label and p == label
                fn += t == label and p != label
        ious.append(tp / (tp + fp + fn) if tp + fp + fn else None)
    known = [iou for iou in ious if iou is not None]
    return ious, sum(known) / len(known) if known else math.nan


@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(2, 19),
    present=st.integers(1, 19),
    ignored=st.floats(0, 1),
)
def test_equal_to_the_official_definition(seed, classes, present, ignored):
    random = np.random.default_rng(seed)
    truths, predictions = [], []
    for _ in range(2):
        truth = random.integers(0, min(present, classes), (7, 9)).astype(np.uint8)
        truth[random.random(truth.shape) < ignored] = IGNORE
        truths.append(truth)
        predictions.append(random.integers(0, classes, (7, 9)).astype(np.uint8))
    matrix = ConfusionMatrix(classes)
    for truth, prediction in zip(truths, predictions, strict=True):
        matrix.add(torch.from_numpy(truth), torch.from_numpy(prediction))
    scores = official_scores(matrix.counts)
    ious, miou = official_by_the_book(truths, predictions, classes)
    assert [iou is None for iou in scores.iou] == [iou is None for iou in ious]
    for ours, theirs in zip(scores.iou, ious, strict=True):
        assert ours is None or ours == pytest.approx(theirs, abs=1e-9)
    assert scores.miou == pytest.approx(miou, abs=1e-9, nan_ok=True)
    valid = np.concatenate([truth.ravel() for truth in truths]) != IGNORE
    right = np.concatenate([(t == p).ravel() for t, p in zip(truths, predictions, strict=True)])
    if valid.any():
        assert scores.accuracy == pytest.approx(right[valid].mean(), abs=1e-9)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("height", [16, 401])  # counted by one thread, and by all
def test_all_threads_together_count_every_pixel_once(threads, height):
    random = np.random.default_rng(3)
    truth = random.integers(0, 5, (height, 499)).astype(np.uint8)
    truth[random.random(truth.shape) < 0.1] = IGNORE
    prediction = random.integers(0, 5, truth.shape).astype(np.uint8)
    torch.set_num_threads(threads)
    matrix = ConfusionMatrix(5)
    for _ in range(2):
        matrix.add(torch.from_numpy(truth), torch.from_numpy(prediction))
    expected = np.zeros((5, 5), np.int64)
    valid = truth != IGNORE
    np.add.at(expected, (truth[valid], prediction[valid]), 2)
    assert np.array_equal(matrix.counts, expected)
    assert torch.get_num_threads() == threads
    with ThreadPoolExecutor(1) as later:
        assert later.submit(torch.get_num_threads).result() == threads


def test_classes_that_are_absent_and_those_predicted_though_absent():
    counts = np.array([[3, 1, 0], [0, 0, 0], [0, 0, 0]])
    scores = official_scores(counts)
    assert scores.iou == (0.75, 0.0, None)
    assert scores.miou == pytest.approx(0.375)
    assert scores.accuracy == 0.75
    assert scores.pixels == (4, 0, 0)
    paper = paper_scores(counts)
    assert paper.iou == (0.75, 0.0, 0.0)
    assert paper.miou == pytest.approx(0.25)
