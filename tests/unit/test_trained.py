"""Networks that dabench trained, wherever a network is named."""

import json

import pytest
import torch
from trained import CONFIG, new_state, write_run

from dabench.base.errors import UsageError
from dabench.data.labels import CLASSES
from dabench.device.registry import open_device
from dabench.network import checkpoint
from dabench.network.build import build_network
from dabench.network.workload import Workload
from dabench.plan.cases import expand
from dabench.plan.networks import identity_of, spec_of
from dabench.plan.settings import Grid, Settings
from dabench.plan.trained import EARLIER, trained_at
from dabench.training.predict import load_trained


@pytest.fixture(scope="module")
def state():
    return new_state(CLASSES["camvid"].names)


@pytest.fixture(scope="module")
def run(tmp_path_factory, state):
    return write_run(tmp_path_factory.mktemp("suite") / "augment-seed0", state, "weights.pt")


@pytest.mark.parametrize("path", ["", "weights.pt"])
def test_a_trained_network_is_one_of_the_registry_with_its_size_and_classes(run, path):
    spec = spec_of(f"trained:{run / path}")
    assert (spec.family, spec.builder) == ("segmenter", spec_of(CONFIG.model).builder)
    assert (spec.height, spec.width, spec.num_classes) == (32, 64, 11)
    assert spec.size_multiple == spec_of(CONFIG.model).size_multiple
    assert spec.name == f"trained:{run / path}"


def test_it_is_built_with_its_weights(run, state):
    network = build_network(f"trained:{run}")
    assert network.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, state["segmenter"]["network"][name])


def test_its_norms_are_timed_as_they_were_trained(run, state):
    grid = Grid(models=(f"trained:{run}",), modes=("eval",), dtypes=("fp32",), devices=("cpu",))
    (planned,) = expand(grid, Settings())
    assert (planned.case.height, planned.case.width) == (32, 64)
    load = Workload(planned.case, open_device("cpu"), seed=0)
    assert load.model(load.x).shape == (1, 11, 32, 64)
    for name, tensor in load.model.state_dict().items():
        assert torch.equal(tensor, state["segmenter"]["network"][name])


def test_other_weights_are_another_network(run, state, tmp_path):
    same = write_run(tmp_path / "same", state, "weights.pt")
    identity = identity_of(f"trained:{run}")
    assert identity.keys() == {"sha256", "before", "after"}
    # Nothing has changed since records did not say it.
    assert {name: identity[name] for name in EARLIER} == EARLIER
    changed = {name: tensor + 1 for name, tensor in state["segmenter"]["network"].items()}
    checkpoint.write(same / "weights.pt", {**state, "segmenter": {"network": changed}})
    assert identity_of(f"trained:{same}") != identity_of(f"trained:{run}")


def test_of_a_run_that_goes_on_a_checkpoint_is_named(state, tmp_path):
    run = write_run(tmp_path / "run", state)
    (run / "checkpoints").mkdir()
    last = checkpoint.save(run / "checkpoints", 1, state)
    with pytest.raises(UsageError, match=r"is not over yet; name one of the files in .*"):
        spec_of(f"trained:{run}")
    assert trained_at(last).weights == last
    assert spec_of(f"trained:{last}").num_classes == 11


@pytest.mark.parametrize("name", ["r (1)", "a:b", "a,b", "x@HEAD", "(x)", " blank "])
def test_any_path(name, run, state, tmp_path):
    there = tmp_path / name
    there.symlink_to(run)
    assert spec_of(f"trained:{there}").name == f"trained:{there}"
    network = build_network(f"trained:{there}").state_dict()
    assert all(torch.equal(network[key], each) for key, each in state_of(state).items())


def state_of(state):
    return state["segmenter"]["network"]


def test_a_model_that_only_another_dabench_has(run, state, tmp_path):
    other = write_run(tmp_path / "run", state, "weights.pt")
    document = (other / "run.json").read_text(encoding="utf-8")
    (other / "run.json").write_text(document.replace(CONFIG.model, "nope"), encoding="utf-8")
    with pytest.raises(UsageError, match=r"--model: .* it was trained by another dabench: .*nope"):
        spec_of(f"trained:{other}")


def test_a_suite_of_one_training_is_its_median_seed(run):
    released = run.parent / "released.json"
    released.write_text(json.dumps({"augment": run.name}), encoding="utf-8")
    assert trained_at(run.parent).weights == run / "weights.pt"
    assert load_trained(run.parent, "cpu").config == CONFIG
    released.write_text(json.dumps({"augment": run.name, "adabn": "other"}), encoding="utf-8")
    with pytest.raises(UsageError, match=r"holds several trainings; name a run, of median seeds: "):
        spec_of(f"trained:{run.parent}")
    released.write_text("{", encoding="utf-8")
    with pytest.raises(UsageError, match=r"cannot read .*released.json: "):
        spec_of(f"trained:{run.parent}")
    released.unlink()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("trained:gone", "--model: 'trained:gone' is not allowed; gone holds no weights of a tr"),
        ("trained:RUN(num_classes=5)", "a trained network takes no arguments"),
        ("trained:STRAY", r"no run.json of a training is beside .*stray.pt"),
        ("trainde:x", r"did you mean 'trained'\?"),
    ],
)
def test_what_is_none_says_why(name, message, run, tmp_path):
    (tmp_path / "stray.pt").touch()
    name = name.replace("RUN", str(run)).replace("STRAY", str(tmp_path / "stray.pt"))
    with pytest.raises(UsageError, match=message):
        spec_of(name)


def test_weights_of_another_network_are_one_line(state, tmp_path):
    run = write_run(tmp_path / "run", {**state, "config": {**state["config"], "model": "disc"}},
                    "weights.pt")  # fmt: skip
    with pytest.raises(UsageError, match=r"weights.pt does not fit disc: "):
        build_network(f"trained:{run}")
