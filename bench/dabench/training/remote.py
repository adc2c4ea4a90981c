"""What a machine of a cluster does of a suite: it says what its runs will be, and carries one out.

Called by Ray's workers, a fresh process each; imports nothing of Ray.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from dabench.base.errors import DabenchError, UsageError
from dabench.base.files import json_text
from dabench.data.roots import Pair, Places, find_places
from dabench.device.machine import describe_host, describe_torch
from dabench.plan.trained import WEIGHTS
from dabench.records.folder import LOCK
from dabench.records.trainings import RESULT, EpochRow, read_result
from dabench.run.nodes import as_started, beside_others, scratch_folder
from dabench.training.config import TrainConfig
from dabench.training.scene import Scene, set_scene
from dabench.training.storage import Mirror, Storage
from dabench.training.suite import Planned, Silent, data_differences, run_one, settled

Message = dict[str, Any]

GPUS = "CUDA_VISIBLE_DEVICES"


class _Noting(Silent):
    """Keeps what a user should know; tells a mirror of epochs."""

    def __init__(self, mirror: Mirror | None = None) -> None:
        self.notes: list[str] = []
        self._mirror = mirror

    def epoch(self, row: EpochRow) -> None:
        """The storage has it, too."""
        if self._mirror is not None:
            self._mirror.epoch_done()

    def note(self, text: str) -> None:
        """For whoever asked."""
        self.notes.append(text)


def prepare(request: Message) -> Message:
    """Settles what the runs of a suite will be on machines of this kind.

    Args:
        request: What is asked for (`dabench.training.spread.Asked`), ``runs``: name ->
            configuration, and ``storage`` or None.

    Returns:
        ``runs``, their configurations, ``data``, a description, and ``notes``; or
        ``error``.
    """
    return _answered(_prepared, request)


def _prepared(request: Message) -> Message:
    _as_started()
    if request["storage"] is not None:
        Storage(request["storage"]).check()
    scene = _scene(request)
    observer = _Noting()
    plan = [Planned(name, TrainConfig.of(each)) for name, each in request["runs"].items()]
    environment = {**describe_host(), **describe_torch()}
    with beside_others():
        configs = settled(plan, environment, len(scene.target.classes), observer)
    return {
        "runs": {name: config.to_dict() for name, config in configs.items()},
        "data": scene.describe(request["split"]),
        "notes": observer.notes,
    }


def train(request: Message, before: Mapping[str, Mapping[str, bytes]]) -> Message:
    """Carries out one run of a suite, from its last checkpoint if the storage has one.

    Args:
        request: As for `prepare`; ``suite``, its document, ``name`` of the run, and ``storage`` of
            this run or None.
        before: Of the run whose weights this one goes on from: name -> files.

    Returns:
        ``result``, ``files``, name -> bytes, and ``notes``; or ``error``.
    """
    return _answered(partial(_trained, before=before), request)


def _trained(request: Message, before: Mapping[str, Mapping[str, bytes]]) -> Message:
    notes = _as_started()
    scene, name, suite = _scene(request), request["name"], request["suite"]
    # Where those are looked for that Ray has ended without a word.
    with tempfile.TemporaryDirectory(dir=scratch_folder()) as scratch, beside_others():
        folder = Path(scratch)
        _check_data(scene, suite)
        for run, files in before.items():
            (folder / run).mkdir()
            for file, content in files.items():
                (folder / run / file).write_bytes(content)
        mirror = None
        if request["storage"] is not None:
            mirror = Mirror(Storage(request["storage"]), folder / name)
            mirror.restore()
        observer = _Noting(mirror)
        result = read_result(folder / name)
        whole = (folder / name / WEIGHTS).exists()
        if result is None or (result["status"] == "ok" and not whole):
            config = TrainConfig.of(suite["runs"][name])
            result = run_one(folder, name, config, suite, scene, observer)
        if mirror is not None:
            # Should nobody hear of it: who asks again need not train again.
            mirror.epoch_done()
        files = _files(folder / name)
        if "reason" in result:
            result["reason"] = result["reason"].replace(f"{folder}/", "")
            files[RESULT] = json_text(result).encode()
        return {"result": result, "files": files, "notes": [*notes, *observer.notes]}


def _check_data(scene: Scene, suite: Mapping[str, Any]) -> None:
    """Checks that this machine's data are what the suite was begun with.

    Raises:
        UsageError: They are not: another's roots, or none and so drawn ones.
    """
    if differing := data_differences(suite, scene):
        raise UsageError(f"the data differ from the run's in {', '.join(differing)}")


def _files(folder: Path) -> dict[str, bytes]:
    """What a run left, checkpoints too if it failed, by name."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != LOCK]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def files_for_others(folder: Path) -> dict[str, bytes]:
    """What a run needs of the one whose weights it goes on from."""
    return {name: (folder / name).read_bytes() for name in (WEIGHTS, RESULT)}


def _scene(request: Message) -> Scene:
    own = find_places({name: Path(path) for name, path in request["given"].items()})
    # What the user's machine knows serves where this one has the same folders.
    theirs = {name: Path(path) for name, path in request["roots"].items() if Path(path).is_dir()}
    pairs = {name: Pair(name, *ends) for name, ends in request["pairs"].items()}
    return set_scene(request["asked"], Places({**theirs, **own.roots}, pairs))


def _as_started() -> list[str]:
    """As the node was started, but with the GPU that Ray chose for this process.

    Returns:
        What could not be undone of what Ray does, in words.
    """
    own = os.environ.get(GPUS)
    notes = as_started()
    if own:
        os.environ[GPUS] = own
    return notes


def _answered(function: Callable[[Message], Message], request: Message) -> Message:
    try:
        return function(request)
    except DabenchError as error:
        return {"error": str(error)}
