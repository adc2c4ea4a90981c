"""The networks of a run with their optimisers."""

import pytest
import torch

from dabench.training.config import TrainConfig
from dabench.training.learners import discriminator_of, segmenter_of


def learner(which, dtype):
    config = TrainConfig(
        pair="gta2city", method="adversarial", steps=1, height=64, width=64, batch=2,
        device="cpu", segmenter_dtype=dtype, disc_dtype=dtype,
    )  # fmt: skip
    return which(config, 5, torch.device("cpu"))


def update(of, gradient):
    for parameter in of.network.parameters():
        parameter.grad = torch.full_like(parameter, gradient)
    of.update()


def numbers(of):
    """Weights, and what the optimiser remembers of them."""
    yield from of.network.parameters()
    for state in of.optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, torch.Tensor))


@pytest.mark.parametrize("which", [segmenter_of, discriminator_of])
def test_first_gradients_that_overflow_are_left_out(which):
    """They do in fp16 at the scale that training begins with."""
    of = learner(which, "fp16")
    update(of, torch.inf)
    before = [parameter.clone() for parameter in of.network.parameters()]
    update(of, 1.0)
    assert all(torch.isfinite(each).all() for each in numbers(of))
    assert not all(map(torch.equal, before, of.network.parameters()))
    # Nothing was remembered of the first: one step from no momentum, by one size.
    kept = [s["momentum_buffer"] for s in of.optimizer.state.values() if "momentum_buffer" in s]
    assert all(buffer.abs().max() < 1e-3 for buffer in kept)


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
@pytest.mark.parametrize("which", [segmenter_of, discriminator_of])
def test_an_optimiser_from_before_they_were_fused_goes_on(which, dtype):
    of = learner(which, dtype)
    assert of.optimizer.defaults["fused"] == (True if dtype == "fp32" else None)
    state = of.optimizer.state_dict()
    state["param_groups"][0]["fused"] = None
    of.optimizer.load_state_dict(state)
    update(of, 1.0)
    assert all(torch.isfinite(each).all() for each in numbers(of))
