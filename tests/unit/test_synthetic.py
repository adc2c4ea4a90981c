"""The stand-in: seeded, complete, in the official layouts."""

import numpy as np
import pytest
from PIL import Image

from dabench.base.errors import UsageError
from dabench.data.check import check_domain_files
from dabench.data.domain import open_domain
from dabench.data.labels import CITYSCAPES, IGNORE
from dabench.data.roots import PAIRS, Places
from dabench.data.standin import write_standin
from dabench.data.synthetic import CAMERA, GAME, draw_scene
from dabench.training.scene import set_scene


@pytest.fixture(scope="module")
def standin(tmp_path_factory):
    return write_standin(tmp_path_factory.mktemp("standin") / "drawn", scale=0.02)


def test_equal_seeds_draw_equal_scenes():
    one, other, third = (draw_scene(GAME, seed, 48, 96) for seed in ((1, 2), (1, 2), (1, 3)))
    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_array_equal(one[1], other[1])
    assert (one[0] != third[0]).any()


@pytest.mark.parametrize("style", [GAME, CAMERA])
def test_every_class_occurs(style):
    found = set()
    for index in range(60):
        found |= set(np.unique(draw_scene(style, (0, index), 64, 128)[1]).tolist())
    assert found - {IGNORE} == set(range(len(CITYSCAPES)))


def test_the_styles_look_different():
    means = [
        np.mean([draw_scene(style, (0, i), 48, 96)[0].mean((0, 1)) for i in range(10)], axis=0)
        for style in (GAME, CAMERA)
    ]
    assert abs(means[0] - means[1]).max() > 25


def test_it_is_written_as_the_datasets_are_published(standin):
    gta5, cityscapes = standin
    with Image.open(min((gta5 / "labels").glob("*.png"))) as label:
        assert label.mode == "P"
        assert label.getpalette()[21:24] == [128, 64, 128]
    for name, root in (("gta5", gta5), ("cityscapes", cityscapes)):
        report = check_domain_files(open_domain(name, root))
        assert report.problems == []
        assert report.domain.name == f"synthetic {name}"
        assert all(split.histogram[0] > 0 for split in report.splits.values())
    assert open_domain("cityscapes", cityscapes).reported == "test"


def test_drawn_frames_never_pass_for_real_ones(standin):
    gta5, cityscapes = standin
    places = Places({"gta5": gta5, "cityscapes": cityscapes}, PAIRS)
    scene = set_scene("gta2city", places)
    assert scene.synthetic
    assert scene.title == "synthetic gta5 -> synthetic cityscapes"
    assert scene.slug == "synthetic-gta2city"


def test_it_never_overwrites(standin):
    with pytest.raises(UsageError, match="holds a stand-in already"):
        write_standin(standin[0].parent)


def test_check_names_what_is_wrong(tmp_path):
    gta5, _ = write_standin(tmp_path / "drawn", scale=0.02)
    images = sorted((gta5 / "images").glob("*.png"))
    labels = sorted((gta5 / "labels").glob("*.png"))
    images[1].write_bytes(b"not a picture")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(labels[2])
    labels[3].unlink()
    Image.fromarray(np.full((210, 382), 200, np.uint8)).save(labels[4])
    problems = "\n".join(check_domain_files(open_domain("gta5", gta5)).problems)
    assert "1 images have no label (00004.png)" in problems
    assert "00002.png cannot be read" in problems
    assert "holds values that are no label ids: [200]" in problems
    assert "unzip -o $zip -d" in problems
    assert "1 pairs differ in size between image and label (00003)" in problems
