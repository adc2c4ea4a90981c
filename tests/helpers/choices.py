"""A run of ``dabench choose`` with fixed numbers."""

from records import ENVIRONMENT, write_medians

from dabench.plan.cases import PlannedCase
from dabench.plan.settings import Settings
from dabench.records.choices import KIND, TIMES, Limits
from dabench.records.folder import RunFolder
from dabench.records.scores import ScoreRecord, ScoreRow
from dabench.records.trainings import FrameRow
from dabench.timing.halving import RUNGS

LAST = RUNGS[-1]


def planned(*cases):
    return [PlannedCase(case=case, settings=Settings.of(launches=1)) for case in cases]


NO_LIMITS = Limits()


def write_choice(folder, times, limits=NO_LIMITS, scores=None, changes=None, **said):
    """A run of a choice: {case: launches' medians}, and {case: share of pixels that are right}."""
    create = {"command": "dabench choose", "environment": ENVIRONMENT}
    asked, data = {"ways": said.get("ways", [])}, said.get("data")
    RunFolder.create(folder, KIND, **create, asked=asked, data=data).close()
    prefix = said.get("weights", "w")
    networks = {
        case.model: {
            "sha256": said.get("identity", prefix + case.model), **said.get("processing", {})
        }
        for case in times
    }  # fmt: skip
    write_medians(
        folder / TIMES, times, choose=limits.to_dict(), networks=networks, changes=changes or {},
        left_out=said.get("left_out", []),
    )  # fmt: skip
    write_graphs(folder / TIMES, times, said.get("graph", "g"))
    if scores:
        run = RunFolder.create(
            folder / "scores-1", "eval", **create, evaluation="official", classes=["x", "y"],
            networks={case.model: {"sha256": f"w{case.model}"} for case in scores},
            plan=[each.to_dict() for each in planned(*scores)],
            data={"name": "streets", "split": "val", "frames": 64, "digest": "d",
                  "synthetic": said.get("synthetic", False)},
        )  # fmt: skip
        with run:
            record = ScoreRecord(run)
            for way, (case, share) in enumerate(scores.items()):
                if share is None:
                    row = ScoreRow(case_id=case.case_id, status="oom", reason="out of memory")
                    record.add(way, case, row)
                    continue
                hit = round(1000 * share)
                rows = [FrameRow(f, str(f), c, hit, 1000, 1000) for f in range(64) for c in (0, 1)]
                row = ScoreRow(
                    case_id=case.case_id,
                    status="ok",
                    frames=64,
                    miou=share,
                    accuracy=share,
                    **said.get("real", {}),
                )
                record.add(way, case, row, rows)
        write_graphs(folder / "scores-1", scores, "g")
    return folder


def write_graphs(folder, cases, graph):
    numbers = dict.fromkeys(
        (
            "macs", "executed_macs", "backward_macs", "executed_backward_macs", "params",
            "min_bytes", "activations", "bytes_moved",
        ),
        1000,
    )  # fmt: skip
    shapes = {
        case.model: {name: getattr(case, name) for name in ("channels", "height", "width", "mode")}
        for case in cases
    }
    with RunFolder.open(folder) as run:
        run.write_json(
            "counts.json",
            [
                {"model": model, "batch": 1, "graph": graph, **shape, **numbers}
                for model, shape in shapes.items()
            ],
        )


def steady(seconds, count=LAST):
    return [seconds * (1 + 0.001 * (number % 3)) for number in range(count)]
