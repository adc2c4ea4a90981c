"""Checkpoints: whole or not at all, and known to be."""

import pytest
import torch

from dabench.base.errors import ResultsError, UsageError
from dabench.network import checkpoint


def test_the_last_two_are_kept_and_the_newest_is_read(tmp_path):
    for step in (5, 10, 15):
        checkpoint.save(tmp_path, step, {"value": torch.tensor(step)})
    state, damaged = checkpoint.load_last(tmp_path)
    assert (state["value"].item(), damaged) == (15, [])
    assert [path.name[:13] for path in sorted(tmp_path.iterdir())] == [
        "step-00000010", "step-00000015",
    ]  # fmt: skip


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_one_is_passed_over(tmp_path, damage):
    checkpoint.save(tmp_path, 5, {"value": torch.tensor(5)})
    last = checkpoint.save(tmp_path, 10, {"value": torch.tensor(10)})
    content = bytearray(last.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    else:
        content[len(content) // 2] ^= 1
    last.write_bytes(bytes(content))
    state, damaged = checkpoint.load_last(tmp_path)
    assert (state["value"].item(), damaged) == (5, [last])


def test_a_full_disk_keeps_the_earlier_ones(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 5, {"value": torch.tensor(5)})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ResultsError, match="No space left on device; earlier ones stay"):
        checkpoint.save(tmp_path, 10, {"value": torch.tensor(10)})
    state, damaged = checkpoint.load_last(tmp_path)
    assert (state["value"].item(), damaged) == (5, [])
    assert len(list(tmp_path.iterdir())) == 1


def test_foreign_files_are_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"none\.pt' does not exist"):
        checkpoint.load(tmp_path / "none.pt")
    with pytest.raises(UsageError, match="holds no checkpoint"):
        checkpoint.load(tmp_path)
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(UsageError, match=r"text\.pt is no checkpoint"):
        checkpoint.load(tmp_path / "text.pt")
    torch.save({"weights": 1}, tmp_path / "other.pt")
    with pytest.raises(UsageError, match=r"other\.pt is no checkpoint of dabench train"):
        checkpoint.load(tmp_path / "other.pt")
    torch.save(print, tmp_path / "code.pt")
    with pytest.raises(
        UsageError, match=r"code\.pt is no checkpoint: it does not hold weights alone"
    ):
        checkpoint.load(tmp_path / "code.pt")
