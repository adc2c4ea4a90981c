"""Datasets in the layouts of their authors."""

import numpy as np
import pytest
from datasets import camvid_root, save_photo, write_cityscapes, write_gta5
from PIL import Image
from scipy.io import savemat

from dabench.base.errors import DataError, UsageError
from dabench.data.check import check_domain_files
from dabench.data.domain import check_labels, open_domain
from dabench.data.labels import CAMVID, CITYSCAPES, read_label
from dabench.data.roots import PAIRS, find_places


def test_cityscapes_takes_ids_or_train_ids(tmp_path):
    write_cityscapes(tmp_path, "train", "aachen")
    write_cityscapes(tmp_path, "val", "bonn", kind="labelTrainIds")
    domain = open_domain("cityscapes", tmp_path)
    assert [frame.encoding for frame in domain.frames("train")] == ["label ids"] * 2
    assert [frame.encoding for frame in domain.frames("val")] == ["train ids"] * 2
    assert (domain.reported, domain.classes) == ("val", CITYSCAPES)
    with pytest.raises(DataError, match="no frames in 'test'; it has: train, val"):
        domain.frames("test")


def test_gta5_is_split_by_name_where_no_file_says_how(tmp_path):
    write_gta5(tmp_path, frames=10)
    domain = open_domain("gta5", tmp_path)
    assert [frame.name for frame in domain.frames("val")] == ["00001", "00006"]
    assert len(domain.frames("train")) == 8


def test_gta5_follows_the_official_split(tmp_path):
    write_gta5(tmp_path, frames=5)
    ids = {"trainIds": [[1], [4]], "valIds": [[2]], "testIds": [[3], [99]]}
    savemat(tmp_path / "split.mat", {name: np.array(value) for name, value in ids.items()})
    domain = open_domain("gta5", tmp_path)
    assert {split: [f.name for f in frames] for split, frames in domain.splits.items()} == {
        "train": ["00001", "00004"], "val": ["00002"], "test": ["00003"],
    }  # fmt: skip
    (tmp_path / "split.mat").write_text("nothing of the kind")
    with pytest.raises(DataError, match=r"split\.mat is not GTA5's split file"):
        open_domain("gta5", tmp_path)


def test_images_without_a_label_are_kept_apart(tmp_path):
    write_gta5(tmp_path, frames=5)
    (tmp_path / "labels" / "00002.png").unlink()
    domain = open_domain("gta5", tmp_path)
    assert [path.name for path in domain.unpaired] == ["00002.png"]
    assert sum(map(len, domain.splits.values())) == 4


def test_camvid_by_sequence_in_png_or_jpg(tmp_path):
    for folder in ("train", "trainannot", "test", "testannot"):
        (tmp_path / folder).mkdir()
    for split, stem, suffix in (
        ("train", "0006R0_f00930", "png"),
        ("train", "0001TP_006690", "jpg"),
        ("test", "0001TP_008550", "jpg"),
    ):
        save_photo(tmp_path / split / f"{stem}.{suffix}")
        Image.fromarray(np.zeros((16, 24), np.uint8)).save(
            tmp_path / f"{split}annot" / f"{stem}.png"
        )
    assert [f.name for f in open_domain("camvid:day", tmp_path).frames("train")] == [
        "0006R0_f00930"
    ]
    dusk = open_domain("camvid:dusk", tmp_path)
    assert (dusk.reported, len(dusk.frames("test")), dusk.classes) == ("test", 1, CAMVID)
    named = open_domain("camvid:0001TP+0006R0", tmp_path, as_cityscapes=True)
    assert (len(named.frames("train")), named.classes) == (2, CITYSCAPES)


def test_real_camvid_dusk_is_evaluated_later_than_it_is_trained_on():
    dusk = open_domain("camvid:dusk", camvid_root())
    train = [frame.name for frame in dusk.frames("train")]
    test = [frame.name for frame in dusk.frames(dusk.reported)]
    assert (len(train), len(test)) == (62, 62)
    assert max(train) < min(test)
    label = read_label(dusk.frames("test")[0].label, "camvid")
    assert label.shape == (360, 480)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("kitti", "'kitti' is not allowed; choices: cityscapes, gta5, camvid"),
        ("gta5:night", "'gta5:night' is not allowed"),
    ],
)
def test_unknown_domains_list_the_known(tmp_path, spec, message):
    with pytest.raises(UsageError, match=message):
        open_domain(spec, tmp_path)


def test_missing_and_empty_roots(tmp_path):
    with pytest.raises(UsageError, match=r"--gta5-root: .*none' is no folder"):
        open_domain("gta5", tmp_path / "none")
    with pytest.raises(DataError, match="no cityscapes frames with labels below"):
        open_domain("cityscapes", tmp_path)


def test_roots_from_options_win_over_variables_and_those_over_the_file(tmp_path, monkeypatch):
    (tmp_path / "dabench.toml").write_text(
        '[roots]\ngta5 = "g"\ncityscapes = "c"\ncamvid = "v"\n'
        '[pairs.rain]\nsource = "gta5"\ntarget = "camvid:dusk"\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DABENCH_CONFIG", raising=False)
    monkeypatch.setenv("DABENCH_GTA5_ROOT", "/from/variable")
    monkeypatch.setenv("DABENCH_CAMVID_ROOT", "/from/variable")
    places = find_places({"camvid": tmp_path})
    assert str(places.roots["gta5"]) == "/from/variable"
    assert places.roots["cityscapes"].name == "c"
    assert places.roots["camvid"] == tmp_path
    assert places.pair("rain").crosses
    assert set(PAIRS) < set(places.pairs)
    with pytest.raises(UsageError, match="unknown pair 'snow'; choices: gta2city"):
        places.pair("snow")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[rots]\n", "unknown key 'rots'"),
        ('[roots]\nkitti = "x"\n', r"unknown key 'roots\.kitti'"),
        ('[pairs.a]\nsource = "gta5"\n', "pair 'a' takes exactly source and target"),
        ("[roots\n", "dabench.toml"),
    ],
)
def test_a_bad_configuration_is_one_line(tmp_path, monkeypatch, text, message):
    (tmp_path / "dabench.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DABENCH_CONFIG", raising=False)
    with pytest.raises(UsageError, match=message):
        find_places({})


def write_ids(root, split, ids, frames=3):
    """Cityscapes frames whose label maps hold some ids each in a stripe."""
    for number in range(frames):
        stem = f"a_{number:06d}_000019"
        for folder in ("leftImg8bit", "gtFine"):
            (root / folder / split / "a").mkdir(parents=True, exist_ok=True)
        label = np.repeat(np.array(ids, np.uint8), 8)[None].repeat(16, 0)
        image = np.zeros((*label.shape, 3), np.uint8)
        Image.fromarray(image).save(root / f"leftImg8bit/{split}/a/{stem}_leftImg8bit.png")
        Image.fromarray(label).save(root / f"gtFine/{split}/a/{stem}_gtFine_labelIds.png")


def test_a_split_without_labels_is_said_before_anything_runs(tmp_path):
    write_ids(tmp_path, "val", [7, 23])
    write_ids(tmp_path, "test", [3])
    domain = open_domain("cityscapes", tmp_path)
    check_labels(domain, "val")
    with pytest.raises(DataError, match=r"'test' split are void .*choose another split: val"):
        check_labels(domain, "test")
    (problem,) = check_domain_files(domain).problems
    assert problem.startswith("test: the labels are void")


def test_train_ids_in_place_of_ids_are_refused_and_can_be_declared(tmp_path):
    write_ids(tmp_path, "train", [0, 2, 10, 13])
    domain = open_domain("cityscapes", tmp_path)
    with pytest.raises(DataError, match=r"look like train ids.*gta5:train-ids"):
        check_labels(domain, "train")
    declared = open_domain("cityscapes:train-ids", tmp_path)
    check_labels(declared, "train")
    frame = declared.frames("train")[0]
    assert set(np.unique(read_label(frame.label, frame.encoding))) == {0, 2, 10, 13}
