"""What is published: the wheel made from the sdist, used outside of the checkout."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = (
    "dabench/py.typed",
    "dabench_models/py.typed",
    "dabench/plan/presets/demo.toml",
    "dabench/plan/presets/paper-cpu.toml",
    "dabench/reference/published.csv",
    "dabench/reference/peaks.csv",
)


def run(*arguments, cwd, path=""):
    shown = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, timeout=300, env={"PYTHONPATH": str(path)},
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    return shown.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel, unpacked as an installer does."""
    folder = tmp_path_factory.mktemp("package")
    run("-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=ROOT)
    (source,) = folder.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(folder / "source", filter="data")
    (unpacked,) = (folder / "source").iterdir()
    run("-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=unpacked)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_of_the_sdist_is_whole_and_works_elsewhere(installed, tmp_path):
    missing = [name for name in NEEDED if not (installed / name).is_file()]
    assert missing == []
    assert not {"bench", "models", "tests", "results"} & {p.name for p in installed.iterdir()}
    where = run("-c", "import dabench; print(dabench.__file__)", cwd=tmp_path, path=installed)
    assert Path(where.strip()).is_relative_to(installed)
    assert "dw-disc" in run("-m", "dabench", "models", cwd=tmp_path, path=installed)
    timed = "time --model dw-disc --size 64x64 --repeat 1 --launches 1 --out run"
    run("-m", "dabench", *timed.split(), cwd=tmp_path, path=installed)
    assert (tmp_path / "run" / "measurements.csv").exists()
    run("-m", "dabench", "audit", "--out", "reports", cwd=tmp_path, path=installed)
