"""Two examples of every command, which its help ends with."""

from __future__ import annotations

from collections.abc import Mapping

EXAMPLES: Mapping[str, tuple[str, str]] = {
    "time": (
        "dabench time --model disc,dw-disc --batch 8 --repeat 20",
        "dabench time --model stdc1-bisenet --runtime eager,openvino --target-ci 2%",
    ),
    "sweep": (
        "dabench sweep demo --out results/demo",
        "dabench sweep --model disc,dw-disc --batch 1,8 --mode train,eval --launches 5",
    ),
    "train": (
        "dabench train gta2city --method adversarial --disc dw-disc --epochs 2",
        "dabench train day2dusk --camvid-root data/camvid --method augment,fda --seeds 0,1,2",
    ),
    "reproduce": (
        "dabench reproduce --quick",
        "dabench reproduce --gta5-root data/gta5 --cityscapes-root data/cityscapes --full",
    ),
    "eval": (
        "dabench eval results/RUN --data camvid:dusk",
        "dabench eval results/RUN --data camvid:dusk --runtime eager,openvino --dtype fp32,bf16",
    ),
    "predict": (
        "dabench predict results/RUN street.png",
        "dabench predict results/RUN *.png --out coloured --device cuda",
    ),
    "flops": (
        "dabench flops --model disc,dw-disc,diag-disc",
        "dabench flops --model stdc1-bisenet --size 512x1024 --mode train --json",
    ),
    "profile": (
        "dabench profile --model dw-disc --batch 2",
        "dabench profile --model disc,dw-disc --dtype fp32,bf16 --memory-format nchw,nhwc",
    ),
    "explain": (
        "dabench explain disc dw-disc --batch 2 --threads 1",
        "dabench explain disc dw-disc --device cuda --batch 32",
    ),
    "choose": (
        "dabench choose --models stdc1-bisenet,stdc2-bisenet --deadline 100ms",
        "dabench choose --checkpoints results/RUN --data camvid:dusk --deadline 33ms --miou 60%",
    ),
    "export-model": (
        "dabench export-model results/RUN --out deployed",
        "dabench export-model results/RUN --out deployed --way onnxruntime+int8",
    ),
    "compare": (
        'dabench compare --model dw-disc --vs "--memory-format nhwc" --decide',
        "dabench compare results/before results/after --delta 3%",
    ),
    "selftest": (
        "dabench selftest --model dw-disc",
        "dabench selftest --model disc --batch 8 --launches 40",
    ),
    "rank": (
        "dabench rank results/laptop results/server",
        "dabench rank results/paper-cpu --published",
    ),
    "history": (
        "dabench history --case dw-disc/cpu/b8",
        "dabench history results archive --delta 5%",
    ),
    "ls": ("dabench ls --tag release", "dabench ls results archive --kind timing"),
    "show": ("dabench show results/demo", "dabench show results/demo --percentiles p50,p99"),
    "tag": ("dabench tag results/demo baseline", "dabench tag results/demo release quiet"),
    "note": (
        'dabench note results/demo "fans cleaned"',
        'dabench note results/demo "governor set to performance"',
    ),
    "prune": (
        "dabench prune --older-than 30d --keep 10",
        "dabench prune archive --older-than 365d --yes",
    ),
    "merge": ("dabench merge from-server.zip", "dabench merge laptop/results --into archive"),
    "export": (
        "dabench export results/demo --format pytest-benchmark",
        "dabench export results/demo --format csv --out demo.csv",
    ),
    "import": (
        "dabench import .benchmarks/0001_main.json",
        "dabench import nvbench.json --into archive",
    ),
    "audit": ("dabench audit results/demo", "dabench audit runs/ --map lossG=adversarial_loss"),
    "ceilings": ("dabench ceilings", "dabench ceilings --dtype fp32,bf16 --threads 1"),
    "report": (
        "dabench report results/demo --html",
        "dabench report results/laptop results/server --name both --format latex",
    ),
    "serve": ("dabench serve", "dabench serve results/demo --port 0"),
    "models": ("dabench models", "dabench models --json"),
    "env": ("dabench env", "dabench env --tune"),
    "data": (
        "dabench data check camvid data/camvid",
        "dabench data synth drawn --scale 0.1",
    ),
    "data check": (
        "dabench data check camvid data/camvid",
        "dabench data check cityscapes data/cityscapes",
    ),
    "data synth": (
        "dabench data synth drawn",
        "dabench data synth drawn --scale 0.1 --seed 1",
    ),
    "data prepare": (
        "dabench data prepare gta5 data/gta5",
        "dabench data prepare camvid:day data/camvid --size 128x160",
    ),
}

START = """\
First: 'dabench env' says what this machine is and what noise to expect.

Then:  'dabench time --model disc,dw-disc --repeat 10' measures two networks.

Or:    'dabench sweep demo' measures a little of everything, 'dabench report --html' shows it.
"""
"""What to do first."""


def examples_of(name: str) -> str:
    """The end of a command's help."""
    return "\n\n".join(("Examples:", *EXAMPLES[name]))
