"""Runs of many samples, as a sweep leaves them."""

import csv

import numpy as np
from fakes import make_launch
from records import write_record

from dabench.plan.cases import expand
from dabench.plan.settings import Grid, Settings
from dabench.records.folder import read_run
from dabench.records.samples import SAMPLE_COLUMNS
from dabench.records.summary import summarised
from dabench.records.timings import LAUNCH_COLUMNS, LAUNCHES, SAMPLES, launch_row

MODELS = ("disc", "dw-disc", "diag-disc", "stdc1-bisenet")


def write_large(folder, cases, launches=5, samples=200, **details):
    """A finished run; of each launch five passes of warm-up, and samples that scatter by 1%."""
    batches = tuple(range(1, -(-cases // len(MODELS)) + 1))
    grid = Grid(models=MODELS, devices=("cpu",), batches=batches, sizes=((64, 64),))
    plan = expand(grid, Settings.of(repeat=samples, launches=launches))[:cases]
    record = write_record(folder, plan=[planned.to_dict() for planned in plan], **details)
    random = np.random.default_rng(0)
    places = [f"warmup,{n}" for n in range(5)] + [f"sample,{n}" for n in range(samples)]
    facts = [launch_row(make_launch(planned.case, [1.0] * 3)) for planned in plan]
    with (folder / SAMPLES).open("w") as sampled, (folder / LAUNCHES).open("w") as launched:
        sampled.write(",".join(SAMPLE_COLUMNS) + "\n")
        rows = csv.writer(launched, lineterminator="\n")
        rows.writerow(LAUNCH_COLUMNS)
        for number in range(cases * launches):
            place, round_ = number % cases, number // cases
            case_id = plan[place].case.case_id
            times = 0.001 * (1 + place % 50) * np.exp(random.normal(0, 0.03))
            times = (times * np.exp(random.normal(0, 0.01, len(places)))).tolist()
            sampled.writelines(
                f"{number},{case_id},forward,{where},{seconds!r},\n"
                for where, seconds in zip(places, times, strict=True)
            )
            row = {**facts[place], "launch": number, "round": round_}
            rows.writerow([row[name] for name in LAUNCH_COLUMNS])
    record.measurements(summarised(folder, read_run(folder)), cases * launches)
    record.run.close()
    return folder
