"""What people time when they print the speed of a segmenter, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

STAGES: Mapping[str, str] = MappingProxyType(
    {
        "decode": "read the file and decode it",
        "prepare": "resize to the network's size and normalise, on the host",
        "upload": "copy to the device, in the network's precision and layout",
        "forward": "the network",
        "argmax": "the largest logit of each pixel, on the device",
        "download": "copy the label map to the host",
        "enlarge": "bring it to the frame's size, to the nearest pixel",
    }
)
"""Stages from a file to a label map of its size, in order, with what each does."""

WHOLE = "whole"
"""All stages in a row, waited for once, at the end."""


@dataclass(frozen=True, slots=True)
class Convention:
    """What one convention times.

    Attributes:
        stages: Of `STAGES`.
        source: Where that is written.
        differs: How passes of this project's differ from theirs beside that; may be empty.
    """

    stages: tuple[str, ...]
    source: str
    differs: str = ""

    @property
    def left_out(self) -> tuple[str, ...]:
        """The stages that it does not time."""
        return tuple(stage for stage in STAGES if stage not in self.stages)


CONVENTIONS: Mapping[str, Convention] = MappingProxyType(
    {
        "bare": Convention(
            ("forward",),
            "dabench time: one pass on an input that lies on the device, waited for",
        ),
        "stdc-seg": Convention(
            ("forward",),
            "MichaelFan01/STDC-Seg latency/utils/darts_utils.py: TensorRT's execute on buffers "
            "that lie on the GPU, the mean of passes in a row",
            "theirs are TensorRT's, here it is the way that was run, and a median",
        ),
        "mlperf": Convention(
            ("upload", "forward", "argmax", "download"),
            "mlcommons/inference loadgen README: the sample library holds preprocessed samples in "
            "memory, untimed; a query lasts until its response is on the host",
            "the load generator's own time is left out here",
        ),
        "mmseg": Convention(
            ("upload", "forward", "argmax", "download", "enlarge"),
            "open-mmlab/mmsegmentation tools/benchmark.py: the model with rescale=True on an image "
            "that loader processes have decoded, resized and normalised",
            "theirs brings the logits of all classes to the frame's size on the device, then takes "
            "softmax and argmax there, which takes longer; here labels are enlarged on the host",
        ),
        "all": Convention(tuple(STAGES), "from the file to a label map of its size"),
    }
)
