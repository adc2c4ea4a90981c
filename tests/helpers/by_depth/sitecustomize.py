"""Python runs this first in every process that finds it: a network takes 10 ms for each layer."""

import re
from pathlib import Path

from steady import steadily

from dabench.run.launcher import Launcher


def _seconds(request):
    path = Path(request["case"]["model"].partition(":")[0])
    (layers,) = re.findall(r"range\((\d+)\)", path.read_text(encoding="utf-8"))
    return 0.01 * int(layers)


Launcher.run = steadily(Launcher.run, _seconds)
