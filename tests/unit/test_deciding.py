"""Seeds are added until a claim is decided."""

from types import SimpleNamespace

import pytest
from suites import ENVIRONMENT

from dabench.base.errors import UsageError
from dabench.findings.trainings import decision_of, load_training, spared_seeds
from dabench.records.folder import read_run
from dabench.records.trainings import TrainRecord
from dabench.training import suite as module
from dabench.training.config import TrainConfig
from dabench.training.deciding import parse_claim
from dabench.training.suite import plan_decision, resume_suite, start_suite

BASE = TrainConfig(
    pair="gta2city", method="augment", steps=2, height=32, width=64, batch=2, device="cpu",
    segmenter_dtype="fp32", disc_dtype="fp32",
)  # fmt: skip
DATA = {
    "asked": "gta2city", "pair": "gta2city", "title": "a -> b", "synthetic": True, "source": "a",
    "target": "b", "classes": ["road"], "evaluated_split": "test",
}  # fmt: skip


class Silent:
    """Hears of everything and says nothing."""

    def __getattr__(self, name):
        return lambda *_: None


class Scene:
    """Of whose data nothing is needed here."""

    target = SimpleNamespace(classes=("road",))

    def describe(self, split):
        return DATA


@pytest.mark.parametrize(
    ("text", "labels", "by"),
    [
        ("advent > adabn by 1", ("advent disc", "adabn"), 0.01),
        ("adversarial dw-disc>adversarial", ("adversarial dw-disc", "adversarial disc"), 0.0),
        ("fda+self-training > minent by 0.5", ("self-training+fda", "minent"), 0.005),
    ],
)
def test_a_claim_is_read(text, labels, by):
    claim = parse_claim(text, "disc")
    assert (claim.better.label, claim.than.label) == labels
    assert claim.by == pytest.approx(by)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("advent", "it takes such as 'advent > adabn by 1'"),
        (" > adabn", "it takes such as"),
        ("advent > ", "it takes such as"),
        ("advent > adabn by much", "it takes such as"),
        ("advent > adabn > fda", "it takes such as"),
        ("magic > adabn", "--decide: 'magic' .*choices: source-only"),
        ("advent big > adabn", "choices: disc, dw-disc"),
        ("advent > advent disc", "the two sides must differ"),
    ],
)
def test_other_claims_are_refused(text, why):
    with pytest.raises(UsageError, match=why):
        parse_claim(text, "disc")


def test_a_side_that_recomputes_statistics_follows_its_training():
    claim = parse_claim("advent > minent+adabn", "dw-disc")
    plan, question = plan_decision(BASE, claim, ("source-only",), ("dw-disc",), (0, 4), 3)
    assert [planned.name for planned in plan] == [
        "minent-seed0", "advent-dw-disc-seed0", "minent+adabn-seed0",
        "minent-seed4", "advent-dw-disc-seed4", "minent+adabn-seed4",
        "source-only-seed0", "source-only-seed4",
        "minent-seed5", "advent-dw-disc-seed5", "minent+adabn-seed5",
    ]  # fmt: skip
    assert (question.seeds, question.first) == ((0, 4, 5), 2)


@pytest.fixture
def fake_runs(monkeypatch):
    """Runs that come out as a function says, and are recorded."""
    scores = {}

    def run_one(folder, name, config, *_):
        record = TrainRecord.create(
            folder / name,
            {"command": "", "environment": ENVIRONMENT, "config": config.to_dict(), "data": DATA},
        )
        result = {"status": "ok", "miou": scores[config.label](config.seed), "steps": 2}
        record.finish(result, ("road",), (0.5,), (1,))
        record.run.close()
        return result

    monkeypatch.setattr(module, "run_one", run_one)
    return scores


def asked(folder, claim, most=12):
    plan, question = plan_decision(BASE, parse_claim(claim, "disc"), (), ("disc",), (0, 1, 2), most)
    return start_suite(
        plan, Scene(), folder=folder, command="", split=None, observer=Silent(), question=question
    )


@pytest.mark.parametrize(
    ("claim", "verdict", "seeds"),
    [
        ("minent > augment by 1", "holds", 3),
        ("minent > augment by 3", "fails", 3),
        ("minent > augment by 2", "undecided", 12),
    ],
)
def test_seeds_are_added_until_it_is_decided(claim, verdict, seeds, fake_runs, tmp_path):
    fake_runs["augment"] = lambda seed: 0.2 + 0.01 * seed
    # Two points better but for a hundredth, now more and now less.
    fake_runs["minent"] = lambda seed: 0.22 + 0.01 * seed + 0.0001 * (-1) ** seed
    results = asked(tmp_path / "suite", claim)
    assert len(results) == 2 * seeds
    runs = load_training([tmp_path / "suite"]).runs
    assert len(runs) == 2 * seeds
    decision = decision_of({"run_id": "suite", **read_run(tmp_path / "suite")}, runs)
    assert decision.verdict == verdict
    assert resume_suite(tmp_path / "suite", Scene(), observer=Silent()) == results


def test_runs_that_a_claim_still_needs_are_pending(fake_runs, tmp_path, monkeypatch):
    fake_runs["augment"] = lambda seed: 0.2
    fake_runs["minent"] = lambda seed: 0.2 + 0.01 * (-1) ** seed
    real = module.run_one

    def cut_off(folder, name, config, *rest):
        if config.seed == 5:
            raise KeyboardInterrupt
        return real(folder, name, config, *rest)

    monkeypatch.setattr(module, "run_one", cut_off)
    with pytest.raises(KeyboardInterrupt):
        asked(tmp_path / "suite", "minent > augment", most=6)
    loaded = load_training([tmp_path / "suite"])
    assert loaded.runs["status"].tolist().count("pending") == 2
    assert spared_seeds(loaded.suites[0], loaded.runs) == frozenset()
