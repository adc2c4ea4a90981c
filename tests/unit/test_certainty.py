"""How sure a score is over the images it was measured on."""

import numpy as np
import pandas as pd
import pytest
from suites import ENVIRONMENT

from dabench.base.errors import ResultsError
from dabench.findings.certainty import (
    RESAMPLES,
    Scored,
    half_width,
    official_miou,
    over_images,
    paper_miou,
    read_scored,
    resampled,
)
from dabench.findings.trainings import TrainingResults, compare
from dabench.records.trainings import FrameRow, TrainRecord
from dabench.report.methods import ScoredRuns, certainty_table
from dabench.scoring.metrics import official_scores, paper_scores

CLASSES = 4


def matrices(frames, seed=0, wrong=0.3):
    """Confusion matrices of frames whose class 3 neither occurs nor is predicted."""
    random = np.random.default_rng(seed)
    counts = random.integers(0, 50, (frames, CLASSES, CLASSES)) * wrong
    counts[:, range(CLASSES), range(CLASSES)] += random.integers(100, 900, (frames, CLASSES))
    counts[:, 3, :] = counts[:, :, 3] = 0
    return counts.astype(np.int64)


def scored(counts):
    hit = np.diagonal(counts, axis1=1, axis2=2).astype(float)
    union = counts.sum(1) + counts.sum(2) - hit
    return Scored(tuple(map(str, range(len(counts)))), hit, union)


def test_frames_add_up_to_the_score():
    counts = matrices(7)
    each = scored(counts)
    hit, union = each.hit.sum(0), each.union.sum(0)
    assert official_miou(hit, union) == pytest.approx(official_scores(counts.sum(0)).miou)
    assert paper_miou(hit, union) == pytest.approx(paper_scores(counts.sum(0)).miou)


def test_a_resampling_draws_blocks_of_neighbours():
    counts = resampled(62)
    assert counts.shape == (RESAMPLES, 62)
    assert set(counts.sum(1)) == {62}
    # Every frame is as likely as another.
    assert counts.mean(0) == pytest.approx(np.ones(62), abs=0.2)
    # A frame that is drawn brings its neighbour.
    drawn = counts > 0
    together = (drawn & np.roll(drawn, 1, axis=1)).mean() / drawn.mean()
    assert together > 0.85
    assert np.array_equal(resampled(1), np.ones((RESAMPLES, 1)))


def test_images_say_as_much_as_they_scatter():
    """Of independent frames, what resampling says is what drawing new ones would give."""
    drawn = [scored(matrices(60, seed)) for seed in range(200)]
    truth = half_width(np.array([official_miou(e.hit.sum(0), e.union.sum(0)) for e in drawn]))
    said = np.mean([over_images([each], [], "official") for each in drawn[:20]])
    assert said == pytest.approx(truth, rel=0.3)


def test_what_both_sides_share_cancels():
    hard, also_hard = scored(matrices(40)), scored(matrices(40))
    assert over_images([hard], [also_hard], "official") == 0
    other = scored(matrices(40, seed=1))
    assert over_images([hard], [other], "official") > 0
    assert over_images([hard], [scored(matrices(39))], "official") is None
    assert over_images([], [], "official") is None


def write_run(folder, counts):
    document = {"command": "", "environment": ENVIRONMENT, "config": {}, "data": {}}
    record = TrainRecord.create(folder, {**document, "run_id": "x", "created": ""})
    rows = [
        FrameRow(frame, f"f{frame}", index, *map(int, (own[index, index], own[index].sum(),
                                                       own[:, index].sum())))
        for frame, own in enumerate(counts)
        for index in range(CLASSES - 1)
    ]  # fmt: skip
    record.finish({"status": "ok"}, (), (), (), rows)


def test_the_table_says_what_limits_a_claim(tmp_path):
    runs, folders, said = [], {}, []
    scores = {"minent": [0.30, 0.31, 0.30], "adabn": [0.10, 0.11, 0.10], "augment": [0.1, 0.3, 0.2]}
    for label, values in scores.items():
        for seed, miou in enumerate(values):
            name = f"{label}-{seed}"
            write_run(tmp_path / name, matrices(30, seed, wrong=len(label)))
            folders["s", name] = tmp_path / name
            runs.append({"suite": "s", "run": name, "label": label, "seed": seed, "miou": miou,
                         "status": "ok", "evaluation": "official"})  # fmt: skip
    good = pd.DataFrame(runs)
    classes = pd.DataFrame({"index": range(CLASSES)})
    loaded = TrainingResults([], good, pd.DataFrame(), classes, {}, folders)

    class Out:
        def table(self, frame, caption):
            said.append((frame, caption))

    found = [compare(good, "minent", other) for other in ("adabn", "augment")]
    runs = ScoredRuns(good, loaded)
    certainty_table(Out(), found, runs)
    frame, caption = said[0]
    clear, open_one = frame.to_dict("records")
    assert clear["compared"] == "minent - adabn"
    assert (clear["points"], clear["± over seeds"], clear["verdict"]) == ("+20.0", "0.0", "better")
    assert (clear["limited by"], clear["more seeds for 1 point"]) == ("images", "-")
    assert float(clear["± over images"]) > 0
    assert (open_one["limited by"], open_one["verdict"]) == ("seeds", "undecided")
    assert int(open_one["more seeds for 1 point"]) > 100
    assert "of these 2, 0.1 would be decided by chance" in caption
    # Of one method alone.
    assert runs.over_images("augment", [0, 1]) > 0
    with pytest.raises(ResultsError, match=r"frames.csv: frame 0, class 2 is not what dabench"):
        read_scored(tmp_path / "adabn-0", 2)
    # Runs of earlier versions kept no frames.
    (tmp_path / "adabn-0" / "frames.csv").unlink()
    assert read_scored(tmp_path / "adabn-0", CLASSES) is None
    certainty_table(Out(), found, ScoredRuns(good, loaded))
    assert said[1][0]["± over images"].tolist()[0] == "-"
