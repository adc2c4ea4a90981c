"""Label maps of every published kind become the same classes."""

import numpy as np
import pytest
from datasets import as_ids, save_palette, some_classes
from PIL import ExifTags, Image

from dabench.base.errors import DataError
from dabench.data.labels import (
    CAMVID,
    CITYSCAPES,
    ID_PALETTE,
    IGNORE,
    TRAIN_TO_ID,
    colourise,
    look_like_train_ids,
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


IDS = np.array([[7, 23], [26, 11]], np.uint8)
CLASSES_OF_IDS = [[0, 10], [13, 2]]


def colours(ids):
    return np.array(ID_PALETTE, np.uint8)[ids]


def saved(path, image):
    image.save(path)
    return path


def test_ids_are_read_from_whatever_holds_them(tmp_path):
    """Grey with an opacity, 16 bits, 32 bits, and a palette that a tool made."""
    grey_alpha = Image.fromarray(np.dstack([IDS, np.full_like(IDS, 255)]), "LA")
    renumbered = Image.fromarray(colours(IDS)).convert("P", palette=Image.Palette.ADAPTIVE)
    for name, image in {
        "la": grey_alpha,
        "16": Image.fromarray(IDS.astype(np.uint16)),
        "32": Image.fromarray(IDS.astype(np.int32)),
        "renumbered": renumbered,
        "greyscale palette": Image.fromarray(IDS).convert("P"),
    }.items():
        path = saved(tmp_path / f"{name}.tif", image)
        assert read_label(path, "label ids").tolist() == CLASSES_OF_IDS, name


def test_a_palette_of_other_colours_is_refused(tmp_path):
    image = Image.fromarray(IDS).convert("P")
    image.putpalette([255 - value // 3 for value in range(768)])
    path = saved(tmp_path / "odd.png", image)
    with pytest.raises(DataError, match=r"odd\.png holds values that are no label ids"):
        read_label(path, "label ids")


@pytest.mark.parametrize("value", [300, 70])
def test_numbers_that_are_no_ids_are_refused(tmp_path, value):
    path = saved(tmp_path / "a.png", Image.fromarray(np.full((2, 2), value, np.uint16)))
    with pytest.raises(DataError, match=r"a\.png"):
        read_label(path, "label ids")


@pytest.mark.parametrize(
    ("values", "train_ids"),
    [
        ([{0, 2, 10, 13}], True),
        ([{0, 1}, {8, 255}], True),
        ([{7, 11, 21, 23}], False),
        ([{0, 7, 11}, {26}], False),
        ([{7, 11}], False),
        ([{3}], False),  # void all over
        ([{255}], False),
    ],
)
def test_train_ids_are_recognised(values, train_ids):
    assert look_like_train_ids(map(frozenset, values)) is train_ids


def test_images_of_16_bits_are_scaled_and_not_clipped(tmp_path):
    ramp = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    image = read_image(saved(tmp_path / "t.png", Image.fromarray(ramp)))
    assert image.shape == (8, 8, 3)
    assert image[..., 0].tolist() == (ramp >> 8).tolist()
    wide = saved(tmp_path / "w.tif", Image.fromarray(ramp.astype(np.int32) * 100))
    with pytest.raises(DataError, match=r"w\.tif cannot be read: .*8 or 16 bits"):
        read_image(wide)


@pytest.mark.parametrize("orientation", [None, *range(1, 9), 77])
def test_a_photo_is_turned_as_its_camera_was_held(tmp_path, orientation):
    ahead = np.zeros((6, 4, 3), np.uint8)
    ahead[:3, :2] = 250
    exif = Image.Exif()
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    as_held = {
        2: ahead[:, ::-1], 3: ahead[::-1, ::-1], 4: ahead[::-1], 5: ahead.swapaxes(0, 1),
        6: np.rot90(ahead), 7: ahead[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(ahead, -1),
    }.get(orientation, ahead)  # fmt: skip
    path = tmp_path / "photo.png"
    Image.fromarray(np.ascontiguousarray(as_held)).save(path, exif=exif)
    assert np.array_equal(read_image(path, upright=True), ahead)
    assert np.array_equal(read_image(path), as_held)


def test_damaged_exif_data_are_no_reason_not_to_read_a_photo(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.ImageDescription] = 6, "a street"
    Image.new("RGB", (4, 6)).save(tmp_path / "photo.jpg", exif=exif)
    data = bytearray((tmp_path / "photo.jpg").read_bytes())
    start = data.index(b"Exif")
    random = np.random.default_rng(0)
    for _ in range(50):
        damaged = bytearray(data)
        for place in random.integers(6, len(exif.tobytes()), 3):
            damaged[start + place] = random.integers(256)
        (tmp_path / "photo.jpg").write_bytes(damaged)
        assert sorted(read_image(tmp_path / "photo.jpg", upright=True).shape) == [3, 4, 6]


def test_an_image_too_large_to_be_true_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    path = saved(tmp_path / "bomb.png", Image.new("RGB", (4, 6)))
    with pytest.raises(DataError, match=r"bomb\.png cannot be read: .*decompression bomb"):
        read_image(path)


@pytest.mark.parametrize("exif", [b"garbage", b"MM", b"Exif\0\0II*\0"])
@pytest.mark.parametrize("kind", ["png", "webp"])
def test_exif_data_that_are_none_are_passed_over(tmp_path, kind, exif):
    path = tmp_path / f"photo.{kind}"
    Image.new("RGB", (4, 6)).save(path, exif=exif)
    assert read_image(path, upright=True).shape == (6, 4, 3)


def test_a_photo_of_16_bits_is_turned_too(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    path = tmp_path / "photo.png"
    Image.fromarray(np.zeros((6, 4), np.uint16)).save(path, exif=exif)
    assert read_image(path, upright=True).shape == (4, 6, 3)
