"""The energy of a run, from the counters of the machine."""

from types import SimpleNamespace

import pytest

from src.tracking import system
from src.tracking.energy import EnergyMeter


@pytest.fixture
def sockets(tmp_path):
    """sockets(first, second): sets the counters of two sockets, in joules, in files like Linux's; returns their folder."""

    def set_counters(*joules):
        for number, value in enumerate(joules):
            for name in (f"intel-rapl:{number}", f"intel-rapl:{number}:0"):  # the second one is a subzone of the first
                (tmp_path / name).mkdir(exist_ok=True)
                (tmp_path / name / "energy_uj").write_text(f"{int(value * 1e6)}\n")
                (tmp_path / name / "max_energy_range_uj").write_text("262143328850\n")
        return tmp_path

    return set_counters


def test_energy_sums_sockets_and_handles_wrap_around(sockets):
    meter = EnergyMeter(sockets(1000, 262_000))
    assert meter
    assert meter.joules() == 0
    sockets(1010, 262_100)
    assert meter.joules() == pytest.approx(110)
    sockets(1010, 56.67115)  # wrapped around at 262,143.32885
    assert meter.joules() == pytest.approx(210)


def test_a_machine_without_counters_has_no_energy_meter(tmp_path, sockets):
    assert not EnergyMeter(tmp_path / "missing")
    (sockets(1) / "intel-rapl:0" / "energy_uj").unlink()
    (tmp_path / "intel-rapl:0" / "energy_uj").mkdir()  # cannot be read
    assert not EnergyMeter(tmp_path)


def test_a_resumed_run_logs_the_energy_of_all_its_processes(sockets, monkeypatch):
    logged, metadata = {}, {"joules": 5.0, "processes": 2}
    outbox = SimpleNamespace(metadata=metadata, update_metadata=metadata.update, last_step=lambda prefix: 0)
    run_logger = SimpleNamespace(outbox=outbox, log_metrics=lambda values, step: logged.update(values))
    folder = sockets(1000)
    monkeypatch.setattr(system, "EnergyMeter", lambda: EnergyMeter(folder))
    with system.SystemMetricsMonitor(run_logger, 60):
        sockets(1010)
    assert logged["joules"] == metadata["joules"] == pytest.approx(15)
