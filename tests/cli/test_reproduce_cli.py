"""``dabench reproduce``: what it keeps of what was asked, and how it goes on."""

import json

import pytest
from command import dabench

from dabench.cli.reproducing import PLAN

ASKED = {"pair": "gta2city", "seeds": [0], "steps": 2, "threads": None, "timing": None}


@pytest.fixture
def begun(tmp_path):
    """A run of which nothing but its plan is there."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / PLAN).write_text(json.dumps(ASKED))
    return tmp_path


@pytest.mark.parametrize(
    "kept",
    [
        b"{}",
        b"[]",
        b"\xff\xfe",
        json.dumps({**ASKED, "seeds": "x"}).encode(),
        json.dumps({**ASKED, "seeds": "12"}).encode(),
        json.dumps({**ASKED, "steps": "two"}).encode(),
        json.dumps({**ASKED, "timing": "nope"}).encode(),
        json.dumps({**ASKED, "more": 1}).encode(),
    ],
)
def test_a_damaged_plan_is_one_line(kept, begun):
    (begun / "run" / PLAN).write_bytes(kept)
    done = dabench("reproduce", "--resume", "run", cwd=begun)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"dabench: run/{PLAN}: not what dabench writes: ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--steps 3", "--resume goes on as planned; leave out '--steps'"),
        ("--full", "--resume goes on as planned; leave out '--quick/--full'"),
        ("--no-timing", "--resume goes on as planned; leave out '--timing/--no-timing'"),
        ("--out other", "--resume goes on as planned; leave out '--out'"),
        ("--name ../up", "--name: '../up' is not allowed; it takes a file name without folders"),
        ("--name=", "--name: '' is not allowed; it takes a file name without folders"),
        ("--reports run/reproduce.json/x", "--reports: 'run/reproduce.json/x' is not allowed; "),
    ],
)
def test_what_it_cannot_go_on_with_is_said_before_anything_is_run(words, said, begun):
    done = dabench("reproduce", "--resume", "run", *words.split(), cwd=begun)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"dabench: {said}")
    assert [path.name for path in (begun / "run").iterdir()] == [PLAN]
