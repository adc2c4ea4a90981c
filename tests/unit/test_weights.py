"""Reading checkpoints: formats, what is left out, what is refused."""

import pickle

import pytest
import torch
from published_nets import random_state, segmenter_keys, stdc_classifier_keys, with_aliases

from dabench_models import WeightsError, build, load_weights


@pytest.fixture(scope="module")
def state():
    return random_state(segmenter_keys("stdc1"), seed=3)


def save(path, content):
    torch.save(content, path)
    return path


def test_published_segmenter_loads_and_names_what_it_left_out(state, tmp_path):
    path = save(tmp_path / "a.pth", {"state_dict": with_aliases(state, "stdc1"), "epoch": 3})
    model = build("stdc1-bisenet")
    report = load_weights(model, path)
    assert set(report.loaded) == set(model.state_dict())
    modules = {key.split(".")[0] if key[0] != "c" else key for key in report.left_out}
    assert any(key.startswith("cp.backbone.conv_last") for key in modules)
    assert any(key.startswith("conv_out_sp16") for key in modules)
    assert not any(".x2." in key or ".x16." in key for key in report.left_out)
    assert f"{len(report.left_out)} left out" in str(report)
    assert "conv_out_sp16" in str(report) or "more" in str(report)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}])
def test_bare_nested_and_prefixed_state_dicts_load(state, tmp_path, wrap):
    path = save(tmp_path / "a.pth", wrap({f"module.{k}": v for k, v in state.items()}))
    model = build("stdc1-bisenet")
    load_weights(model, path)
    key = "cp.backbone.features.2.conv_list.0.conv.weight"
    assert torch.equal(model.state_dict()[key], state[key])


def test_a_checkpoint_of_our_own_loads_without_rest(tmp_path):
    model = build("dw-disc")
    report = load_weights(build("dw-disc"), save(tmp_path / "a.pth", model.state_dict()))
    assert report.left_out == ()
    assert "none left out" in str(report)


def test_a_backbone_file_fills_the_backbone(tmp_path):
    backbone = random_state(stdc_classifier_keys("stdc2"), seed=0)
    model = build("stdc2-bisenet")
    report = load_weights(model.cp.backbone, save(tmp_path / "a.pth", {"state_dict": backbone}))
    assert {key.split(".")[0] for key in report.left_out} == {"conv_last", "fc", "bn", "linear"}


def test_a_checkpoint_without_detail_heads_fits_the_network_without_one(state, tmp_path):
    bare = {key: value for key, value in state.items() if "_sp" not in key}
    path = save(tmp_path / "a.pth", bare)
    with pytest.raises(WeightsError, match="conv_out_sp8"):
        load_weights(build("stdc1-bisenet"), path)
    load_weights(build("stdc1-bisenet", detail=False), path)


def test_counters_that_old_files_lack_are_not_missed(state, tmp_path):
    old = {key: value for key, value in state.items() if "num_batches" not in key}
    model = build("stdc1-bisenet")
    report = load_weights(model, save(tmp_path / "a.pth", old))
    assert not [key for key in report.loaded if "num_batches" in key]
    assert torch.equal(model.state_dict()["ffm.conv1.weight"], state["ffm.conv1.weight"])


def test_missing_and_misshapen_keys_give_one_error_and_change_nothing(state, tmp_path):
    broken = {key: value for key, value in state.items() if not key.startswith("ffm")}
    broken["conv_out.conv_out.weight"] = torch.zeros(7, 256, 1, 1)
    path = save(tmp_path / "a.pth", broken)
    model = build("stdc1-bisenet")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(WeightsError) as error:
        load_weights(model, path)
    message = str(error.value)
    assert "\n" not in message
    assert "ffm.convblk.conv.weight" in message
    assert "and 4 more" in message
    assert "conv_out.conv_out.weight is (7, 256, 1, 1), not (19, 256, 1, 1)" in message
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


class Exploit:
    def __reduce__(self):
        return (print, ("code of a stranger ran",))


@pytest.mark.parametrize("content", [Exploit(), {"state_dict": {"x": Exploit()}}])
def test_pickled_code_is_never_run(tmp_path, capsys, content):
    path = save(tmp_path / "a.pth", content)
    with pytest.raises(WeightsError, match="cannot read weights"):
        load_weights(build("disc"), path)
    assert "stranger" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {"a": 1}}, {"a": "b"}])
def test_files_that_hold_no_state_dict_are_refused(tmp_path, content):
    with pytest.raises(WeightsError, match="holds no state dict"):
        load_weights(build("disc"), save(tmp_path / "a.pth", content))


def test_missing_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(WeightsError, match="cannot read"):
        load_weights(build("disc"), tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(WeightsError, match="cannot read"):
        load_weights(build("disc"), tmp_path / "text.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(WeightsError):
        load_weights(build("disc"), tmp_path / "old.pth")


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    "prefix",
    ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module.", "module.module.", "model.",
     "model.module."],
)  # fmt: skip
@pytest.mark.parametrize("under", [(), ("model",), ("model_state_dict",), ("ema", "state_dict")])
def test_what_wrappers_put_around_a_state_dict_comes_off(tmp_path, prefix, under):
    model = build("dw-disc")
    content = prefixed(model.state_dict(), prefix)
    for key in reversed(under):
        content = {key: content, "epoch": 3}
    other = build("dw-disc")
    report = load_weights(other, save(tmp_path / "a.pt", content))
    assert len(report.loaded) == len(model.state_dict())
    assert report.left_out == ()
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True)
    )


def test_lightning_keeps_more_than_the_network(tmp_path):
    state = prefixed(build("dw-disc").state_dict(), "model.") | {"loss.weight": torch.ones(3)}
    report = load_weights(build("dw-disc"), save(tmp_path / "a.ckpt", {"state_dict": state}))
    assert report.left_out == ("loss.weight",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda s: {"model": {}}, "holds no state dict of tensors under 'model'"),
        (lambda s: prefixed(s, "backbone."), "20 of 20 keys missing: .*the file has backbone.conv"),
        (lambda s: {k: torch.full_like(v, float("nan")) for k, v in s.items()},
         "20 hold what is no number: conv_layers.0.weight"),
        (lambda s: {"state_dict": s, "best": __import__("numpy").float64(0.5)},
         r"it holds a numpy\S*scalar beside its tensors"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_clean_line(tmp_path, content, message):
    path = save(tmp_path / "a.pt", content(build("dw-disc").state_dict()))
    with pytest.raises(WeightsError, match=message) as error:
        load_weights(build("dw-disc"), path)
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)
