"""The command line from outside: its surface, its answers, its refusals."""

import json
import os
import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import typer.main
from command import dabench, shell

from dabench.cli.app import app, main
from dabench.cli.examples import EXAMPLES
from dabench.cli.output import print_line, print_table, resuming

HERE = Path(__file__).parent


def surface():
    """Every command with its parameters, as JSON."""
    root = typer.main.get_command(app)

    def parameters(command):
        return {
            p.name: {
                "names": [*p.opts, *p.secondary_opts],
                "multiple": getattr(p, "multiple", False),
            }
            for p in command.params
        }

    def commands(group, prefix=""):
        for name, listed in sorted(group.commands.items()):
            command = listed.loaded() if hasattr(listed, "loaded") else listed
            if hasattr(command, "commands"):
                yield from commands(command, f"{prefix}{name} ")
            else:
                yield f"{prefix}{name}", parameters(command)

    return {"dabench": parameters(root), **dict(commands(root))}


def test_the_surface_is_frozen():
    """After a wanted change: ``DABENCH_UPDATE_GOLDEN=1``, and a line in the changelog."""
    golden = HERE / "surface.json"
    text = json.dumps(surface(), indent=1) + "\n"
    if os.environ.get("DABENCH_UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize(("name", "command"), typer.main.get_command(app).commands.items())
def test_the_list_of_commands_says_what_the_commands_say(name, command):
    loaded = command.loaded()
    assert (loaded.name, loaded.help.partition("\n\n")[0]) == (name, command.help)


def command_of(name):
    first, *rest = name.split()
    found = typer.main.get_command(app).commands[first].loaded()
    for each in rest:
        found = found.commands[each]
    return found


@pytest.mark.parametrize("name", EXAMPLES)
def test_help_ends_with_two_examples_that_are_understood(name):
    loaded = command_of(name)
    *_, head, first, second = loaded.epilog.split("\n\n")
    assert head == "Examples:"
    assert first != second
    for line in (first, second):
        program, *words = shlex.split(line)
        assert [program, *words][: len(name.split()) + 1] == ["dabench", *name.split()]
        if not hasattr(loaded, "commands"):
            # Options and values are read; nothing runs.
            loaded.make_context(name, words[len(name.split()) :])


def test_every_command_has_examples():
    names = set(typer.main.get_command(app).commands)
    assert set(EXAMPLES) == names | {f"data {each}" for each in command_of("data").commands}


def test_dabench_alone_says_what_to_do_first(tmp_path):
    done = dabench(cwd=tmp_path, COLUMNS="120")
    assert "First: 'dabench env'" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("dabench rep", {"report", "reproduce"}), ("dabench report --h", {"--html", "--help"})],
)
def test_the_shell_completes_commands_and_options(typed, offered):
    completion = {
        "_DABENCH_COMPLETE": "complete_bash", "COMP_WORDS": typed,
        "COMP_CWORD": str(len(typed.split()) - 1),
    }  # fmt: skip
    program = Path(sys.executable).with_name("dabench")
    done = subprocess.run(
        [program], capture_output=True, text=True, env={**os.environ, **completion}
    )
    assert set(done.stdout.split()) == offered


def test_a_command_imports_no_other():
    code = (
        "import sys, contextlib, io\n"
        "from dabench.cli import main\n"
        "sys.argv = ['dabench', 'models', '--help']\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()): main()\n"
        "print(sorted(name for name in sys.modules if name.startswith('dabench.cli.')))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == (
        "['dabench.cli.app', 'dabench.cli.examples', 'dabench.cli.info', 'dabench.cli.late', "
        "'dabench.cli.output']"
    )


def test_the_canonical_call_is_understood():
    shown = dabench(
        "time", "--model", "dw-disc", "--device", "cuda", "--batch", "32", "--repeat", "50"
    )
    lacks_gpu = "device 'cuda' is not available" in shown.stderr
    assert lacks_gpu or shown.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("time", "--model: name at least one"),
        ("time --model dwdisc", "--model: unknown model 'dwdisc'; did you mean 'dw-disc'?"),
        ("time --model disc --device gpu", "--device: 'gpu' is not allowed; choices: auto, cpu"),
        ("time --model disc --device cpu:1", "device 'cpu:1' is not available"),
        ("time --model disc --device mps", "device 'mps' is not available: .*available: .*cpu"),
        ("time --model disc --dtype fp8", "--dtype: 'fp8' is not allowed; choices: fp32"),
        ("time --model disc --mode both", "--mode: 'both' is not allowed; choices: train, eval"),
        ("time --model disc --batch 0", "--batch: '0' is not allowed; .*at least 1"),
        ("time --model disc --batch two", "--batch: 'two' is not allowed; .*whole numbers"),
        ("time --model disc --repeat 0", "--repeat: '0' is not allowed; .*at least 1"),
        ("time --model disc --size 64", "--size: '64' is not allowed; it takes HxW"),
        ("time --model disc --size 0x64", "--size: '0x64' is not allowed"),
        ("time --model disc --size 65x64", "--size: '65x64' .*disc needs .*multiples of 32"),
        ("time --model disc --target-ci much", "--target-ci: 'much' .*percentage"),
        ("time --model disc --max-time soon", "--max-time: 'soon' .*seconds"),
        ("time --model disc --order up", "--order: 'up' .*interleaved, blocked"),
        ("time --model disc --protocol x", "--protocol: 'x' .*steady, paper"),
        ("time --model disc --out /dev/null/x", "--out: cannot write '/dev/null/x'"),
        (
            "sweep",
            (
                r"needs a preset \(demo, hub, hub-smp, hub-torchvision, int8, loads, memory, "
                r"paper-cpu, paper-gpu, paper-quick, runtimes, segmenters\)"
            ),
        ),
        (
            "sweep paper",
            "--preset: 'paper' .*paper-cpu, paper-gpu, paper-quick, runtimes, segmenters",
        ),
        ("sweep hub --source nowhere", "--source: 'nowhere' is not allowed; it takes the folder"),
        ("sweep --source . --model disc", "--source: it adds to a preset or a file; name one"),
        ("sweep none.toml", "cannot read the grid file 'none.toml'"),
        ("sweep --resume none", "none holds no run"),
        ("flops", "--model: name at least one"),
        ("flops --model nope", "--model: unknown model 'nope'"),
        ("flops --model disc --size 33x32", "--size: '33x32' .*multiples of 32"),
        ("flops --model disc --mode all", "--mode: 'all' .*train, eval"),
        ("flops --model disc --batch -1", "--batch: '-1' .*at least 1"),
        ("flops --model disc --size 0x0", "--size: '0x0' is not allowed"),
        ("sweep demo --preset segmenters", "--preset: 'segmenters' beside 'demo'"),
        ("sweep --resume none --repeat 3", "--resume goes on as planned; leave out '--repeat'"),
        ("sweep --resume none --source .", "--resume goes on as planned; leave out '--source'"),
        ("sweep hub --resume none", "--resume goes on as planned; leave out 'PRESET|FILE.toml'"),
        ("sweep demo --machines all", "--machines: it is of a cluster; name that by --on"),
        ("sweep demo --on ray --machines some", "--machines: 'some' is not allowed"),
        ("sweep demo --on cluster", "--on: 'cluster' is not allowed; it takes 'ray' or"),
        (f"time --model disc --out {'x' * 300}", "--out: cannot write 'x.*File name too long"),
        ("time --model disc --threads 99999999999", "--threads: .*from 1 to 4096"),
        ("report --name a/b", "--name: 'a/b' .*without folders"),
        ("report none", "none holds no run"),
        ("report", "no runs under results"),
        ("train", "train needs a pair; choices: gta2city, city2city"),
        ("train rome2city", "unknown pair 'rome2city'; choices: gta2city"),
        ("train gta2city --method magic", "--method: 'magic' .*source-only, augment"),
        ("train gta2city --disc big", "--disc: 'big' .*disc, dw-disc, diag-disc"),
        ("train gta2city --model disc", "--model: 'disc' .*training takes a segmenter"),
        ("train gta2city --model nope", "--model: unknown model 'nope'"),
        ("train gta2city --size 100x200", "--size: '100x200' .*multiples of 32"),
        ("train gta2city --size 64x64 --crop 96x96", "--crop: '96x96' .*fit into the image, 64x64"),
        ("train gta2city --steps 0", "--steps: '0' .*at least 1"),
        ("profile", "--model: name at least one"),
        ("profile --model nope", "unknown model 'nope'"),
        ("profile --model disc --size 65x64", "--size: '65x64'.*multiples of 32"),
        ("explain disc disc", "two networks, not 'disc' twice"),
        ("explain disc standard", "two networks, not 'disc' twice"),
        ("explain nope", "FIRST or SECOND: unknown model 'nope'"),
        ("explain disc none.py:net", "FIRST or SECOND: 'none.py:net' .*no file 'none.py'"),
        ("compare --model disc --vs nope", "--vs: unknown model 'nope'"),
        ("compare --model nope --vs disc", "--model: unknown model 'nope'"),
        ("choose --models nope", "--models: unknown model 'nope'"),
        ("choose --checkpoints none", "--checkpoints: 'trained:none' .*none holds no weights"),
        ("explain --batch 1,2", "at one device, batch, size, mode and number of threads"),
        ("explain --threads 1,2", "at one device, batch, size, mode and number of threads"),
        ("explain --size 64x64,128x128", "at one device, batch, size, mode and number"),
        ("ceilings --dtype fp31", "--dtype: 'fp31'.*fp32"),
        ("ceilings --threads x", "--threads: 'x'.*whole numbers"),
        ("audit results/none", "results/none holds no run"),
        ("audit --map x", "--map: 'x' .*NAME=VALUE"),
        ("audit --map x=colour", "--map: 'x=colour' .*metrics: loss, "),
        ("audit --lambda 0", "--lambda: '0.0' .*from 1e-09 to 1000"),
        ("audit --claim x=3", "--claim: there is no log of a training; name one"),
        ("audit --claim x=0.3", "--claim: 'x=0.3' .*in percent, as 33.8"),
        ("train gta2city --epochs 1 --steps 1", "--epochs, --steps, --seconds: give one of the"),
        ("train gta2city --budget time", "--budget: 'time' .*images, seconds"),
        ("train gta2city --budget seconds", "--budget: 'seconds' .*--seconds must say how many"),
        ("train gta2city --budget images --seconds 9", "--budget: 'images' .*the other budget"),
        ("train gta2city --decide advent", "--decide: 'advent' .*'advent > adabn by 1'"),
        ("train gta2city --seeds 0,1,0", "--seeds: '0,1,0' .*each seed once"),
        ("train gta2city --max-seeds 5", "--max-seeds: it is of a claim"),
        (
            "train gta2city --decide minent>adabn --max-seeds 2",
            "--max-seeds: '2' .*at least 3 for these seeds",
        ),
        ("train gta2city --seconds 0", "--seconds: '0.0' .*above 0"),
        ("train gta2city --method advent --disc none", "--disc: 'none' .*disc, dw-disc"),
        ("train gta2city --method advent+control", "--method: .*exclude each other"),
        ("train gta2city --method minent+dsbn,fda+dsbn", "--method: 'fda.dsbn' .*goes with one"),
        ("train gta2city --fda-beta 0.5", "--fda-beta: '0.5' .*below 0.5"),
        ("train gta2city --mask-ratio nan", "--mask-ratio: 'nan' .*below 1"),
        ("train gta2city --backbone-weights resnet18", "--backbone-weights: 'resnet18' .*a file"),
        ("train gta2city --epochs two", "'--epochs'.*integer.*, not 'two'"),
        ("train gta2city --batch 1", "--batch: '1' .*at least 2: batch norm"),
        ("train gta2city --lr 0", "--lr: '0.0' .*above 0"),
        ("train gta2city --seeds ,", "--seeds: ',' .*whole numbers"),
        ("train gta2city --seeds -1", "--seeds: '-1' .*at least 0"),
        ("train gta2city --dtype fp32,fp16", "--dtype: 'fp32,fp16' .*needs the segmenter in fp16"),
        ("train gta2city --augment blur", "--augment: 'blur' .*jitter, flip, crop"),
        ("train gta2city --eval-split dev", "--eval-split: 'dev' .*train, val, test"),
        ("train gta2city --backbone-weights no.pt", "--backbone-weights: 'no.pt' .*existing file"),
        ("train gta2city --gta5-root .", "--cityscapes-root: gta2city needs gta5 and cityscapes"),
        ("train day2dusk", "--camvid-root: day2dusk needs it; nothing stands in for CamVid"),
        ("train day2dusk --camvid-root none", "--camvid-root: 'none' is no folder"),
        ("train day2dusk --camvid-root .", "no camvid:day frames with labels below"),
        ("train --resume none", "none holds no run"),
        ("train --resume none --lr 1", "--resume goes on as planned; leave out '--lr'"),
        ("train --resume none --lambda 1", "--resume goes on as planned; leave out '--lambda'"),
        ("eval none --data gta5", "checkpoint 'none' does not exist"),
        ("eval none --data kitti", "--data: 'kitti' is not allowed"),
        ("predict none a.png", "image 'a.png' does not exist"),
        ("reproduce --pair rome2city", "unknown pair 'rome2city'"),
        ("reproduce --seeds x", "--seeds: 'x' .*whole numbers"),
        ("reproduce --resume none", "--resume: 'none' holds no run of dabench reproduce"),
        ("reproduce --name a/b", "--name: 'a/b' .*file name without folders"),
        ("reproduce --reports /dev/null/x", "--reports: '/dev/null/x' .*cannot be made"),
        ("data check gta5 none", "ROOT: 'none' is no folder"),
        ("data prepare camvid:day none", "ROOT: 'none' is no folder"),
        ("data check kitti .", "NAME: 'kitti' is not allowed"),
        ("data synth x --scale 0", "--scale a number above 0"),
        ("data synth x --scale nan", "--scale: 'nan' "),
        ("data synth x --scale 1e400", "--scale: 'inf' "),
        ("data synth x --seed -1", "--seed: '-1' .*at least 0"),
        ("data prepare cityscapes . --size 0x0", "--size: '0x0' .*at least 1"),
        ("profile --model disc --rows 0", "--rows: '0' .*at least 1"),
        ("profile --model disc --rows 5 --rows x", "'--rows'.*integer.*, not 'x'"),
        ("time --model disc --launches 99999999999999999999", "--launches: .*at most 10000"),
        ("choose --models disc --deadline 1s --split val", "--split: it is of --data"),
        ("time --model a\udcff.py:net", "--model: .*a.udcff.*it takes text"),
        ("prune --keep 99999999999", "--keep: '99999999999' .*whole number"),
        ("report --format word", "--format: 'word' .*markdown, latex"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, tmp_path):
    shown = dabench(*arguments.split(), cwd=tmp_path)
    assert shown.returncode == 2
    assert shown.stdout == ""
    (line,) = shown.stderr.splitlines()
    assert re.search(message, line)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--name a/b", "file name without folders"),
        ("--reports link", "cannot be made"),
        ("--out begun", "holds a run already"),
    ],
)
def test_reproduce_draws_nothing_for_what_it_refuses(option, said, tmp_path, monkeypatch):
    def draws(*_):
        raise AssertionError("it was drawn")

    monkeypatch.setattr("dabench.training.scene.set_scene", draws)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "reproduce.json").touch()
    shown = dabench("reproduce", *option.split(), cwd=tmp_path)
    assert shown.returncode == 2
    (line,) = shown.stderr.splitlines()
    assert said in line


def test_an_unknown_option_is_refused(tmp_path):
    shown = dabench("time", "--modle", "disc", cwd=tmp_path)
    assert shown.returncode == 2
    assert "--modle" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_debug_shows_the_traceback(tmp_path):
    shown = shell("--debug", "flops", "--model", "nope", cwd=tmp_path)
    assert "Traceback" in shown.stderr
    assert "UsageError" in shown.stderr


def test_an_unknown_key_in_a_grid_file(tmp_path):
    (tmp_path / "grid.toml").write_text('[[grid]]\nmodel = "disc"\nspeed = 1\n')
    shown = dabench("sweep", "grid.toml", cwd=tmp_path)
    assert shown.returncode == 2
    assert "grid.toml: unknown key 'speed'; known: model" in shown.stderr


def test_a_newer_schema(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text('{"schema": 99}')
    shown = dabench("report", "run", cwd=tmp_path)
    assert shown.returncode == 2
    assert "schema 99" in shown.stderr
    assert "upgrade" in shown.stderr


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        ("models --json", {"schema", "models"}),
        ("env --json", {"schema", "environment", "noise", "advice"}),
        ("flops --model dw-disc --size 64x64 --json", {"schema", "counts"}),
        (
            "time --model dw-disc --size 64x64 --repeat 1 --launches 1 --json",
            {"schema", "environment", "measurements"},
        ),
    ],
)
def test_json_is_one_document_and_nothing_else(arguments, keys, tmp_path):
    shown = dabench(*arguments.split(), cwd=tmp_path)
    assert shown.returncode == 0
    assert shown.stderr == ""
    assert set(json.loads(shown.stdout)) == keys


def test_env_says_what_noise_to_expect(monkeypatch):
    # On a busy machine the passes would not fit into the time there is for them.
    monkeypatch.setattr("dabench.run.session.NOISE_S", 600.0)
    shown = dabench("env").stdout
    assert re.search(r"noise: 90% of 180 short passes over 6 launches", shown)
    assert "devices" in shown


def test_flops_measures_the_share_of_what_it_does_not_count():
    shown = dabench(
        "flops", "--model", "dw-disc", "--size", "64x64", "--mode", "eval", "--time-share"
    )
    assert re.search(r"leaky_relu_ x8 \(\d+\.\d% of the time\)", shown.stdout)
    assert shown.stderr == ""


def test_records_and_report_hold_the_share_of_what_is_not_counted(tmp_path):
    timed = "time --model dw-disc --size 64x64 --repeat 2 --launches 1 --out run -q"
    assert dabench(*timed.split(), cwd=tmp_path).returncode == 0
    (count,) = json.loads((tmp_path / "run" / "counts.json").read_text())
    assert 0 < count["time_shares"]["leaky_relu_"] < 1
    assert dabench("report", "run", "--name", "shares", cwd=tmp_path).returncode == 0
    report = (tmp_path / "reports" / "shares.md").read_text()
    assert re.search(r"`dw-disc` 64x64 \(main output\): leaky_relu_ x8 \(\d+\.\d%\)", report)


def test_ctrl_c_during_the_first_imports_is_quiet(tmp_path):
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt\n")
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    shown = shell("--help", PYTHONPATH=path)
    assert (shown.returncode, shown.stderr) == (130, "")


def test_a_terminal_that_lacks_a_sign_costs_no_result(tmp_path):
    arguments = "time --model dw-disc --size 32x32 --repeat 1 --launches 1 -q"
    shown = shell(*arguments.split(), cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert shown.returncode == 0
    assert "dw-disc" in shown.stdout


def test_what_libraries_print_stays_out_of_the_json(tmp_path):
    arguments = "time --model dw-disc --size 32x32 --repeat 1 --launches 1 --json"
    shown = shell(*arguments.split(), cwd=tmp_path, ONEDNN_VERBOSE="1")
    assert json.loads(shown.stdout)["measurements"]


def test_models_lists_every_network():
    from dabench_models import MODELS

    shown = dabench("models").stdout
    assert all(name in shown for name in MODELS)


def test_flops_prints_exact_counts_and_what_is_not_counted():
    shown = dabench("flops", "--model", "disc,diag-disc", "--layers").stdout
    assert "15,441,330,176" in shown
    assert "3,737,387,008" in shown
    assert "conv_layers.16" in shown
    assert "no multiply-adds in leaky_relu_ x8, mul x5" in shown


def test_the_version_is_the_packages():
    assert shell("--version").stdout.strip() == f"dabench {metadata.version('dabench')}"


def test_a_reader_that_has_gone_changes_no_exit_code():
    for arguments in ("models", "models --json", "--version", "--help"):
        read, write = os.pipe()
        os.close(read)
        command = [sys.executable, "-m", "dabench", *arguments.split()]
        shown = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
        os.close(write)
        assert (shown.returncode, shown.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("models > /dev/full", 2, "dabench: cannot write to standard output: No space left"),
        ("models --json > /dev/full", 2, "dabench: cannot write to standard output: No space left"),
        ("models --json >&-", 0, ""),
        ("show none 2>/dev/full", 2, ""),
        ("show none 2>&-", 2, ""),
        ("--debug show none 2>/dev/full", 2, ""),
    ],
)
def test_what_cannot_be_said_changes_no_exit_code(command, code, said, tmp_path):
    shown = subprocess.run(
        ["sh", "-c", f"exec {shlex.quote(sys.executable)} -m dabench {command}"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert shown.returncode == code
    assert shown.stderr.startswith(said)
    assert shown.stderr.count("\n") == bool(said)


def test_a_run_goes_on_when_nobody_reads_its_progress(tmp_path):
    (tmp_path / "fails.py").write_text("def net(): raise ValueError('no')")
    read, write = os.pipe()
    os.close(read)
    shown = subprocess.run(
        [sys.executable, "-m", "dabench", "time", "--model", "fails.py:net", "--size", "8x8",
         "--repeat", "1", "--launches", "1"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=write, text=True,
    )  # fmt: skip
    os.close(write)
    assert shown.returncode == 1
    assert "ValueError: no" in shown.stdout


def test_what_breaks_elsewhere_is_no_success(monkeypatch, capsys):
    def broken(*_, **__):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("dabench.cli.info.print_table", broken)
    monkeypatch.setattr(sys, "argv", ["dabench", "models"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert capsys.readouterr().err == "dabench: Broken pipe\n"


def test_names_are_no_markup(capsys):
    print_table("[/b] and [red]x[/red]", ("a:car:" + 40 * "x",), [("[bold]b",)], words=())
    print_line("runs:car:x/[b]" + 300 * "y")
    shown = capsys.readouterr().out
    assert "[/b] and [red]x[/red]" in shown
    assert "[bold]b" in shown
    assert "runs:car:x/[b]" + 300 * "y" + "\n" in shown
    assert resuming("sweep --on ray", Path("a b")) == "dabench sweep --on ray --resume 'a b'"
