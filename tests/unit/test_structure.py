"""The way data flows: imports point one way, heavy ones stay where they belong."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Lower may not import higher.
LAYERS = (
    ("errors", "units", "clock", "memory", "energy"),
    ("stats", "roofline"),
    ("references", "variants", "tensors"),
    ("engine", "config", "networks"),
    ("plan", "operators", "device", "data"),
    ("grid", "flops", "shares", "measurement", "workload", "environment", "layers"),
    ("results", "tracing", "runtimes", "kernels"),
    ("worker",),
    ("forkserver", "launcher", "runner", "tables", "training_records", "profile_records"),
    ("session", "training_tables", "ceilings", "audit", "profile_tables", "trials"),
    ("explain",),
    ("report", "adapt", "profiling"),
    ("api",),
    ("cli",),
)
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}


def imports(path):
    """Modules a file imports, also inside functions, but not for type checking only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def rooms(package):
    """Each module of the package with the room it lives in."""
    folder = ROOT / "bench" / package
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        if parts[0] not in ("__init__", "__main__"):
            yield parts[0], path


def test_every_room_has_its_place():
    assert {room for room, _ in rooms("dabench")} == set(LEVEL)


def test_imports_point_one_way():
    wrong = [
        f"{path.name} imports {module}"
        for room, path in rooms("dabench")
        for module in imports(path)
        if module.startswith("dabench.")
        and module.split(".")[1] in LEVEL
        and module.split(".")[1] != room
        and LEVEL[module.split(".")[1]] >= LEVEL[room]
    ]
    assert wrong == []


def test_models_never_import_dabench():
    for path in (ROOT / "models").rglob("*.py"):
        assert not [m for m in imports(path) if m == "dabench" or m.startswith("dabench.")]


@pytest.mark.parametrize("room", ["tables", "report"])
def test_reports_never_import_torch(room):
    code = f"import sys, dabench.{room}; print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"


@pytest.mark.parametrize("arguments", [["--help"], ["time", "--help"], ["--version"], ["models"]])
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
