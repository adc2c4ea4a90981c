"""Which network, run how: ways are raced, and what is left of trained networks is scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dabench.base.errors import UsageError, bad_value, named_as
from dabench.data.domain import check_labels
from dabench.data.named import domain_of
from dabench.device.machine import describe_host
from dabench.device.memory import can_keep_freed_pages
from dabench.plan.axes import AXES
from dabench.plan.cases import Case, expand
from dabench.plan.devices import resolve_all, resolve_device
from dabench.plan.grids import make_grid
from dabench.plan.networks import identities
from dabench.plan.references import Reference
from dabench.plan.settings import Grid, Settings
from dabench.plan.trained import SOURCE, is_trained, trained_at
from dabench.plan.ways import AXES_OF_WAYS, PLAIN, parse_way, usual_ways
from dabench.records.choices import KIND, TIMES, Limits, races, read_limits
from dabench.records.folder import RunFolder, bad_row, check_new_run, has_run, read_run
from dabench.records.summary import launches_by_case
from dabench.records.timings import read_plan
from dabench.run.calibrating import NOWHERE, Roots
from dabench.run.launcher import Launcher
from dabench.run.runner import Observer
from dabench.run.scoring import Data, Told, resume_scores, score_into
from dabench.run.session import probe, resume, run_grids
from dabench.timing.halving import HALVING_RULE
from dabench.timing.tails import PERCENTILES, needed_passes
from dabench_models import MODELS

Grids = list[tuple[Grid, Settings]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What is to be chosen from.

    Attributes:
        models: Names of networks.
        ways: Names of ways to run them; empty takes those that are usual on the device.
        limits: What they must keep.
        device: Its name, perhaps ``auto``.
        batch: Images of a pass.
        size: (height, width) of the input; empty takes each network's own.
        threads: Of CPU kernels; 0 leaves torch's.
        seed: Of weights, inputs and the order of launches.
    """

    models: tuple[str, ...]
    ways: tuple[str, ...] = ()
    limits: Limits
    device: str = "auto"
    batch: int = 1
    size: tuple[int, ...] = ()
    threads: int = 0
    seed: int = 0

    def grids(self, ways: Sequence[str]) -> Grids:
        """A grid per way.

        Raises:
            UsageError: A way that is none, or a value that will not do.
        """
        shared: dict[str, tuple[Any, ...]] = {
            "model": self.models,
            "device": (self.device,),
            "batch": (self.batch,),
            "size": (self.size,) if self.size else (),
            "threads": (self.threads,) if self.threads else (),
        }
        settings = {
            # It is launches that scatter: as few as give a percentile at all, six a median.
            "repeat": needed_passes(PERCENTILES[self.limits.percentile]),
            "launches": 1,
            "seed": self.seed,
        }
        axes = [{axis: (value,) for axis, value in parse_way(way).items()} for way in ways]
        return [make_grid({**shared, **each}, settings) for each in axes]

    def to_dict(self) -> dict[str, Any]:
        """A JSON document; `Asked.of` reads it back."""
        return asdict(self)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Asked:
        """Reads what `to_dict` wrote."""
        several = {name: tuple(document[name]) for name in ("models", "ways", "size")}
        return cls(**{**document, **several, "limits": Limits.of(document["limits"])})


SEGMENTERS = tuple(name for name, spec in MODELS.items() if spec.family == "segmenter")
"""What is chosen from where nobody names a network."""


def asked_for(
    *,
    models: Sequence[str],
    checkpoints: Sequence[str],
    ways: Sequence[str],
    limits: Limits,
    shape: Mapping[str, Sequence[Any]],
    seed: int,
) -> Asked:
    """What options say, checked.

    Args:
        models: Names of networks.
        checkpoints: Runs of trainings.
        ways: Names of ways to run them.
        limits: What they must keep.
        shape: Axis -> its one value, of those of ``device``, ``batch``, ``size`` and ``threads``
            that were given.
        seed: Of weights, inputs and the order of launches.

    Raises:
        UsageError: A value that an option does not take.
    """
    # One that is named twice is one.
    paths = {Path(path).resolve(): path for path in reversed(checkpoints)}
    trained = [f"{SOURCE}:{path}" for path in reversed(paths.values())]
    names = tuple(dict.fromkeys([*models, *trained])) or SEGMENTERS
    for axis, values in shape.items():
        if len(values) != 1:
            given = ",".join(str(AXES[axis].written(value)) for value in values)
            raise bad_value(f"--{axis}", given, "choose takes one value of it")
    single = {axis: values[0] for axis, values in shape.items()}
    asked = Asked(models=names, ways=tuple(ways), limits=limits, seed=seed, **single)
    with named_as("--checkpoints", "--model"):
        for name in trained:
            Reference.of(name).check()
    with named_as("--models", "--model"):
        for grid, settings in asked.grids(ways or (PLAIN,)):
            expand(grid, settings)
    return asked


def data_for(
    asked: str, split: str | None, models: Sequence[str], roots: Mapping[str, Path | None]
) -> Data:
    """The domain that trained networks are scored on.

    Args:
        asked: Its name.
        split: Of it; None is the reported one.
        models: Names of networks, trained ones among them.
        roots: Dataset -> where it is, as far as somebody said.

    Raises:
        UsageError: No such domain, or one of other classes than a network's.
    """
    trained = {n: trained_at(Path(Reference.of(n).factory)) for n in models if is_trained(n)}
    (first, of_first), *others = trained.items()
    for name, each in others:
        if each.classes != of_first.classes:
            raise UsageError(
                f"--checkpoints: {name} has {len(each.classes)} classes and {first} "
                f"{len(of_first.classes)}, not the same ones: their accuracies cannot be compared"
            )
    domain = domain_of(asked, roots, of_first.classes)
    chosen = split or domain.reported
    check_labels(domain, chosen)
    return Data(asked, domain, chosen)


def choose_into(
    folder: Path,
    asked: Asked,
    data: Data | None,
    *,
    command: str,
    observer: Observer,
    told: Told,
    roots: Roots = NOWHERE,
) -> None:
    """Times and scores what is needed to choose.

    Args:
        folder: For the records.
        asked: What is to be chosen from.
        data: What trained networks are scored on; None leaves accuracy out.
        command: What the user asked for, for the record.
        observer: Told of each launch.
        told: Told of each way that is scored.
        roots: Dataset -> where it is, as far as somebody said: int8 is calibrated on it.

    Raises:
        UsageError: Anything wrong with the request; nothing was measured.
        KeyboardInterrupt: Ctrl-C; what was measured is kept.
    """
    check_new_run(folder)
    with Launcher() as launcher:
        environment = describe_host() | probe(launcher)
    device = resolve_device(asked.device, environment)
    ways = asked.ways or usual_ways(device.partition(":")[0], keeps=can_keep_freed_pages())
    asked = Asked.of({**asked.to_dict(), "device": device, "ways": ways})
    resolved, left_out = resolve_all(asked.grids(ways), environment)
    if not resolved:
        raise bad_value("--ways", ",".join(ways), "; ".join(left_out))
    run = RunFolder.create(
        folder,
        KIND,
        command=command,
        environment=environment,
        networks=identities(asked.models),
        rules={"halving": HALVING_RULE},
        asked=asked.to_dict(),
        data=None if data is None else {"asked": data.asked, "split": data.split},
    )
    with run:
        _carry_out(folder, asked, data, command, observer, told, roots)


def asked_of(folder: Path) -> tuple[Asked, Mapping[str, str] | None]:
    """What a run was asked, and the name and split of the data it scores on.

    Raises:
        UsageError: No run of a choice there.
        ResultsError: Not what dabench writes.
    """
    document = read_run(folder, KIND)
    with bad_row(folder / "run.json", 1):
        return Asked.of(document["asked"]), document["data"]


def resume_choice(
    folder: Path,
    data: Data | None,
    *,
    observer: Observer,
    told: Told,
    roots: Roots = NOWHERE,
) -> None:
    """Continues an interrupted choice.

    Args:
        folder: Of the run.
        data: As it was begun with.
        observer: Told of each launch.
        told: Told of each way that is scored.
        roots: Dataset -> where it is, as far as somebody said.

    Raises:
        UsageError: No such run, another machine, or networks or frames that have changed.
        KeyboardInterrupt: Ctrl-C, again.
        ResultsError: Its records are damaged.
    """
    asked, _ = asked_of(folder)
    command = str(read_run(folder)["command"])
    with RunFolder.open(folder, KIND):
        _carry_out(folder, asked, data, command, observer, told, roots)


def _carry_out(
    folder: Path,
    asked: Asked,
    data: Data | None,
    command: str,
    observer: Observer,
    told: Told,
    roots: Roots,
) -> None:
    times = folder / TIMES
    if has_run(times):
        session = resume(times, observer=observer, roots=roots)
    else:
        session = run_grids(
            asked.grids(asked.ways),
            folder=times,
            observer=observer,
            command=command,
            chooses=asked.limits,
            roots=roots,
        )
    if session.outcome.interrupted:
        raise KeyboardInterrupt
    if data is not None:
        trained = [name for name in asked.models if is_trained(name)]
        for number, model in enumerate(trained, start=1):
            scores = folder / f"scores-{number}"
            if has_run(scores):
                resume_scores(scores, data, told=told, roots=roots)
            elif grids := _left(times, model):
                score_into(scores, grids, data, command=command, told=told, times=True, roots=roots)


def _left(times: Path, model: str) -> Grids:
    """The ways of a network that the race has left, each as a grid.

    Raises:
        ResultsError: Damaged records.
    """
    document = read_run(times)
    plan = read_plan(times, document)
    limits = read_limits(times, document)
    assert limits is not None
    found = races(plan, launches_by_case(times, plan), limits)
    left = {case_id for race in found.values() for case_id in race.left}
    return [
        (_grid(planned.case), planned.settings)
        for planned in plan
        if planned.case.model == model and planned.case.case_id in left
    ]


def _grid(case: Case) -> Grid:
    """A case as a grid of its own."""
    way = {key: getattr(case, key) for key in AXES_OF_WAYS}
    axes = {key: (value,) for key, value in way.items() if value != AXES[key].plain}
    shape = {"batch": (case.batch,), "size": ((case.channels, case.height, case.width),)}
    threads = {"threads": (case.threads,)} if case.threads else {}
    # As it is: a path may hold commas.
    grid, _ = make_grid(
        {"model": (case.model,), "device": (case.device,), **shape, **threads, **axes}, {}
    )
    return grid


def check_data(models: Sequence[str], limits: Limits, data: str | None) -> None:
    """Checks that accuracy can be known where it is asked for.

    Raises:
        UsageError: It cannot.
    """
    trained = [name for name in models if is_trained(name)]
    if limits.miou is not None and not trained:
        raise UsageError("--miou: accuracy is of trained networks; name some by --checkpoints")
    if trained and data is None:
        raise UsageError(f"--data: needed to score {trained[0]}")
    if data is not None and not trained:
        raise UsageError("--data: it is what trained networks are scored on; name --checkpoints")
