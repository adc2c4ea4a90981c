"""Label maps of every published kind become the same classes."""

import numpy as np
import pytest
from datasets import as_ids, save_palette, some_classes
from PIL import Image

from dabench.base.errors import DataError
from dabench.data.labels import (
    CAMVID,
    CITYSCAPES,
    IGNORE,
    TRAIN_TO_ID,
    colourise,
    read_image,
    read_label,
)


def test_nineteen_classes_in_their_official_order():
    assert CITYSCAPES.names[:3] == ("road", "sidewalk", "building")
    assert CITYSCAPES.names[-1] == "bicycle"
    assert TRAIN_TO_ID == (
        7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33,
    )  # fmt: skip
    assert len(CAMVID) == 11


def test_grey_palette_and_colour_files_agree(tmp_path):
    classes = some_classes()
    Image.fromarray(as_ids(classes)).save(tmp_path / "grey.png")
    save_palette(tmp_path / "palette.png", as_ids(classes))
    Image.fromarray(colourise(classes, CITYSCAPES)).save(tmp_path / "colour.png")
    Image.fromarray(classes).save(tmp_path / "train.png")
    for name, encoding in (
        ("grey", "label ids"),
        ("palette", "label ids"),
        ("colour", "label ids"),
        ("train", "train ids"),
    ):
        np.testing.assert_array_equal(read_label(tmp_path / f"{name}.png", encoding), classes)


def test_classes_that_are_not_evaluated_are_ignored(tmp_path):
    Image.fromarray(np.array([[0, 5, 9, 255, 7]], np.uint8)).save(tmp_path / "a.png")
    assert read_label(tmp_path / "a.png", "label ids").tolist() == [[255, 255, 255, 255, 0]]
    colours = [[(0, 0, 0), (250, 170, 160), (20, 20, 20)]]
    Image.fromarray(np.array(colours, np.uint8)).save(tmp_path / "b.png")
    assert read_label(tmp_path / "b.png", "label ids").tolist() == [[IGNORE] * 3]


def test_the_ids_of_gta5s_own_list(tmp_path):
    Image.fromarray(np.array([[34, 26]], np.uint8)).save(tmp_path / "a.png")
    assert read_label(tmp_path / "a.png", "label ids").tolist() == [[IGNORE, 13]]


def test_camvid_as_its_own_classes_and_as_those_of_cityscapes(tmp_path):
    Image.fromarray(np.arange(12, dtype=np.uint8)[None]).save(tmp_path / "a.png")
    own = read_label(tmp_path / "a.png", "camvid")[0].tolist()
    assert own == [*range(11), IGNORE]
    matched = read_label(tmp_path / "a.png", "camvid as cityscapes")[0].tolist()
    names = [CITYSCAPES.names[index] for index in matched[:-1]]
    assert names[:6] == ["sky", "building", "pole", "road", "sidewalk", "vegetation"]
    assert matched[-1] == IGNORE


@pytest.mark.parametrize(
    ("stored", "encoding", "named"),
    [
        (np.full((2, 2), 77, np.uint8), "label ids", r"\[77\]"),
        (np.full((2, 2), 19, np.uint8), "train ids", r"\[19\]"),
        (np.full((2, 2, 3), 3, np.uint8), "label ids", r"\[3, 3, 3\]"),
        (np.full((2, 2, 3), 3, np.uint8), "camvid", "is no label map"),
    ],
)
def test_wrong_values_name_the_file_and_the_values(tmp_path, stored, encoding, named):
    Image.fromarray(stored).save(tmp_path / "wrong.png")
    with pytest.raises(DataError, match=rf"wrong\.png.*{named}"):
        read_label(tmp_path / "wrong.png", encoding)


def test_corrupt_files_are_named(tmp_path):
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    for read in (read_image, lambda path: read_label(path, "label ids")):
        with pytest.raises(DataError, match=r"a\.png cannot be read"):
            read(tmp_path / "a.png")
