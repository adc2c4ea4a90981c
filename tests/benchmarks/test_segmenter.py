"""The segmenter at the obvious options, against itself as published."""

import pytest
import torch
from published_nets import random_state, segmenter_all_heads, segmenter_keys

from dabench_models import build


@pytest.fixture(scope="module")
def state():
    return random_state(segmenter_keys("stdc1"), seed=0)


def forwards(state, dtype, size=(512, 1024)):
    """Three forwards at 1x3x512x1024: ours in nhwc, and two in NCHW and fp32.

    The first of those computes the four heads of training; the second all that
    STDC-Seg's own forward computes, detail heads on 1/2, 1/4 and 1/16 too.
    """
    x = torch.randn(1, 3, *size)
    weights = {key: state[key] for key in build("stdc1-bisenet").state_dict()}
    fast, plain = build("stdc1-bisenet").eval(), build("stdc1-bisenet").eval()
    for model in (fast, plain):
        model.load_state_dict(weights)
    fast = fast.to(dtype).to(memory_format=torch.channels_last)
    y = x.to(dtype).contiguous(memory_format=torch.channels_last)

    def inference(function, *arguments):
        def call():
            with torch.inference_mode():
                function(*arguments)

        return call

    return (
        inference(fast, y),
        inference(plain.forward_heads, x),
        inference(segmenter_all_heads, state, x, "stdc1"),
    )


@pytest.mark.parametrize(
    ("name", "dtype", "bound"),
    [("nhwc", torch.float32, 1.3), ("bf16 nhwc", torch.bfloat16, 4.0)],
)
def test_nhwc_against_the_published_network(compare, state, name, dtype, bound):
    ours, heads, published = compare.medians(*forwards(state, dtype), rounds=15, warmup=3)
    compare.check(f"speed-up of {name} over our four heads", heads / ours)
    compare.check(f"speed-up of {name} over STDC-Seg's forward", published / ours, at_least=bound)
