"""How warm the device was: from its own sensors, and nothing where there is none."""

import sys
import types
from typing import NamedTuple

import psutil
import pytest

from dabench.device import cuda
from dabench.device.cpu import CpuDevice
from dabench.device.plain import PlainDevice
from dabench.run.sampling import _watched


class Sensor(NamedTuple):
    current: float


@pytest.mark.parametrize(
    ("sensors", "celsius"),
    [
        ({"coretemp": [Sensor(61.0), Sensor(64.5)], "nvme": [Sensor(80.0)]}, 64.5),
        ({"k10temp": [Sensor(48.25)]}, 48.25),
        ({"acpitz": [Sensor(30.0)]}, None),  # the board's
        ({}, None),
    ],
)
def test_the_hottest_sensor_of_the_processor(monkeypatch, sensors, celsius):
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: sensors, raising=False)
    assert CpuDevice().temperature() == celsius


def test_systems_without_sensors_tell_nothing(monkeypatch):
    monkeypatch.delattr(psutil, "sensors_temperatures", raising=False)
    assert CpuDevice().temperature() is None
    assert PlainDevice().temperature() is None


def test_a_gpu_is_asked_for_its_own(monkeypatch):
    class NVMLError(Exception):
        pass

    def sensor(handle, kind):
        if handle != "handle":
            raise NVMLError("not supported")
        return {0: 71}[kind]

    fake = types.SimpleNamespace(
        NVMLError=NVMLError, NVML_TEMPERATURE_GPU=0, nvmlDeviceGetTemperature=sensor
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    device = cuda.CudaDevice.__new__(cuda.CudaDevice)
    device._nvml_handle = lambda: "handle"
    assert device.temperature() == 71.0
    device._nvml_handle = lambda: "another"
    assert device.temperature() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)  # not installed
    assert device.temperature() is None


def test_it_is_read_when_the_work_is_done(monkeypatch):
    device, heat = CpuDevice(), [40.0]
    monkeypatch.setattr(device, "temperature", lambda: heat[-1])
    with _watched(device) as watch:
        assert watch == {}
        heat.append(55.0)
    assert watch["celsius"] == 55.0
