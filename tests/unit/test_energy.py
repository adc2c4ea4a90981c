"""Joules from the kernel's counters, and why there are none."""

import pytest

from dabench.device.energy import Counter, NoEnergyError, Rapl
from dabench.run.sampling import _joules
from dabench.run.worker import _meter
from dabench.timing.engine import PhaseSamples
from dabench.timing.samples import Sample


def zone(root, name, kind, energy, most=1000_000_000):
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{kind}\n")
    (folder / "energy_uj").write_text(f"{energy}\n")
    (folder / "max_energy_range_uj").write_text(f"{most}\n")
    return folder / "energy_uj"


def test_packages_are_added_and_parts_of_them_left_out(tmp_path):
    first = zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 5_000_000)
    core = zone(tmp_path, "intel-rapl:0:0", "core", 1)
    platform = zone(tmp_path, "intel-rapl:2", "psys", 1)
    meter = Rapl(tmp_path)
    meter.start()
    first.write_text("3000000")
    second.write_text("5500000")
    for ignored in (core, platform):
        ignored.write_text("900000000")
    assert meter.joules() == pytest.approx(2.5)
    assert meter.source == "RAPL, 2 packages"


def test_a_counter_that_came_to_its_end(tmp_path):
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 9_000_000, most=10_000_000)
    meter = Rapl(tmp_path)
    counter.write_text("500000")
    assert meter.joules() == pytest.approx(1.5)


def test_start_counts_anew(tmp_path):
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    meter = Rapl(tmp_path)
    counter.write_text("4000000")
    meter.start()
    counter.write_text("4250000")
    assert meter.joules() == pytest.approx(0.25)


def test_no_counters_and_counters_for_root_alone(tmp_path, monkeypatch):
    with pytest.raises(NoEnergyError, match="no RAPL counters"):
        Rapl(tmp_path)
    zone(tmp_path, "intel-rapl:0", "package-0", 0)

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Rapl, "_read", refuse)
    with pytest.raises(NoEnergyError, match="cannot be read: Permission denied"):
        Rapl(tmp_path)


def test_a_counter_of_millijoules():
    readings = iter([1000, 4000, 6500])
    meter = Counter("NVML", lambda: next(readings))
    meter.start()
    assert (meter.joules(), meter.source) == (2.5, "NVML")


class Meter:
    source = "test"
    fewest_seconds = 0.1

    def start(self):
        pass

    def joules(self):
        return 12.0


def samples(count, seconds):
    return PhaseSamples(samples=[Sample(seconds, None)] * count)


def test_joules_are_per_pass_where_nothing_else_ran_between():
    assert _joules(Meter(), "forward", samples(4, 0.1)) == 3.0
    assert _joules(Meter(), "total", samples(4, 0.1)) == 3.0
    # The forward before each backward used energy too.
    assert _joules(Meter(), "backward", samples(4, 0.1)) is None
    assert _joules(Meter(), "forward", samples(4, 0.01)) is None
    assert _joules(None, "forward", samples(4, 0.1)) is None


def test_why_there_is_none_is_said():
    class Device:
        def energy_meter(self):
            raise NoEnergyError("it is made of wood")

    assert _meter(Device()) == (None, "n/a: it is made of wood")
