"""The energy of a run is what the machine's own counters count while it lasts."""

from types import SimpleNamespace

import pytest

from src.tracking import system
from src.tracking.energy import Meter


@pytest.fixture
def sockets(tmp_path):
    """sockets(first, second): what two sockets have counted, in joules, as Linux shows it."""

    def count(*joules):
        for number, value in enumerate(joules):
            for name in (f"intel-rapl:{number}", f"intel-rapl:{number}:0"):  # the second one is a part of the first
                (tmp_path / name).mkdir(exist_ok=True)
                (tmp_path / name / "energy_uj").write_text(f"{int(value * 1e6)}\n")
                (tmp_path / name / "max_energy_range_uj").write_text("262143328850\n")
        return tmp_path

    return count


def test_all_sockets_are_added_up_and_a_counter_that_begins_again_goes_on(sockets):
    meter = Meter(sockets(1000, 262_000))
    assert meter
    assert meter.joules() == 0
    sockets(1010, 262_100)
    assert meter.joules() == pytest.approx(110)
    sockets(1010, 56.67115)  # wrapped at 262,143.32885
    assert meter.joules() == pytest.approx(210)


def test_where_nothing_counts_there_is_nothing_to_tell(tmp_path, sockets):
    assert not Meter(tmp_path / "not there")
    (sockets(1) / "intel-rapl:0" / "energy_uj").unlink()
    (tmp_path / "intel-rapl:0" / "energy_uj").mkdir()  # cannot be read
    assert not Meter(tmp_path)


def test_a_run_tells_what_it_and_the_processes_before_it_have_used(sockets, monkeypatch):
    told, facts = {}, {"joules": 5.0, "processes": 2}
    journal = SimpleNamespace(facts=facts, know=facts.update, last_step=lambda prefix: 0)
    record = SimpleNamespace(journal=journal, metrics=lambda values, step: told.update(values))
    folder = sockets(1000)
    monkeypatch.setattr(system, "Meter", lambda: Meter(folder))
    with system.SystemMetrics(record, 60):
        sockets(1010)
    assert told["joules"] == facts["joules"] == pytest.approx(15)
