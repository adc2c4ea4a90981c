"""Heavy imports stay where they belong; that imports point one way is import-linter's part."""

import subprocess
import sys

import pytest

WITHOUT_TORCH = ("base", "plan", "timing", "records", "findings", "report")
MODULES = """
import importlib, pkgutil, sys
package = importlib.import_module(f"dabench.{sys.argv[1]}")
for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
    importlib.import_module(module.name)
print("torch" in sys.modules)
"""


@pytest.mark.parametrize("layer", WITHOUT_TORCH)
def test_a_layer_without_torch(layer):
    command = [sys.executable, "-c", MODULES, layer]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["time", "--help"],
        ["compare", "--help"],
        ["export", "--help"],
        ["--version"],
        ["models"],
    ],
)
def test_help_imports_neither_torch_nor_pandas(arguments):
    code = (
        "import sys, contextlib, io\n"
        "from dabench.cli import main\n"
        f"sys.argv = ['dabench', *{arguments!r}]\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()): main()\n"
        "print(sorted({'torch', 'pandas', 'torchvision', 'numpy'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
