"""MLflow's own pages, in a real browser: `mlflow ui` typed where the runs were made, without any flag about where they are."""

import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from tests.browser import CHROMIUM, DRIVER, browser
from tests.commands import environment
from tests.stored import runs

pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="there is no chromium with chromedriver on this machine")


@pytest.fixture
def ui(here):
    """The address of an MLflow UI over what is in this folder, on a free port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    server = subprocess.Popen(
        command, cwd=here, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    address = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=1)
                break
            except OSError:
                assert server.poll() is None, "the server ended"
                assert time.monotonic() < until, "the server did not start"
                time.sleep(0.3)
        yield address
    finally:
        os.killpg(server.pid, 15)  # the server and its workers, which are a group of their own
        server.wait(timeout=30)


@pytest.fixture(name="browser")
def large_browser():
    with browser(1600, 1200) as driver:
        yield driver


@pytest.fixture
def swept(command, here, request):
    """The address of an MLflow UI over a sweep of two jobs; the run of the sweep, and those of its jobs."""
    done = command("-m", "model=lstm", "training.epochs=2", "dataset.limit=64", "model.units=4", "seed=0,1")
    assert done.returncode == 0, done.stderr
    found = runs(here, "co2")
    (parent,) = (run for run in found if run.data.tags.get("kind") == "sweep")
    return request.getfixturevalue("ui"), parent, [run for run in found if run is not parent]


def test_runs_a_sweep_metrics_and_figures_are_shown(swept, browser):
    address, parent, jobs = swept
    listed = f"{address}/#/experiments/{parent.info.experiment_id}/runs"
    shown(browser, listed, "sweep-2-jobs", "co2")
    screenshot(browser, "runs")

    found = jobs[0]
    number = f"{found.data.metrics['test/mae']:.2f}"[:4]
    shown(browser, f"{listed}/{found.info.run_id}", number, "test/mae", found.info.run_name, "Finished", "sweep-2-jobs")
    screenshot(browser, "run")
    figure(browser, f"{listed}/{found.info.run_id}/artifacts/figures/forecast.png")
    screenshot(browser, "figure")

    shown(browser, f"{listed}/{parent.info.run_id}", "best/objective", "jobs/finished", *(job.info.run_name for job in jobs))
    screenshot(browser, "sweep")
    figure(browser, f"{listed}/{parent.info.run_id}/artifacts/figures/effects.png")
    screenshot(browser, "effects")


@pytest.mark.slow
def test_a_comparison_is_a_page_that_needs_nothing_from_elsewhere(command, here, browser):
    done = command("-m", "model=lstm,rnn", "dataset=co2", "training.epochs=2", "model.units=4", "seed=0,1")
    assert done.returncode == 0, done.stderr
    assert command("to=page.html", module="src.compare").returncode == 0
    shown(browser, (here / "page.html").as_uri(), "co2, forecasting: test/mae, lower is better", "lstm", "rnn")
    screenshot(browser, "comparison")
    assert browser.execute_script("return document.querySelector('svg').getBoundingClientRect().width") > 400
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0

    def column():
        cells = "[...document.querySelectorAll('tbody td:first-child')]"
        return browser.execute_script(f"return {cells}.map(cell => cell.textContent)")

    before = column()
    assert sorted(before) == ["lstm", "rnn"]
    for order in (["rnn", "lstm"], ["lstm", "rnn"]):
        browser.execute_script("document.querySelector('th').click()")
        assert column() == order


def shown(browser, address, *words):
    """Waits until a page shows all the words."""
    browser.get(address)
    until = time.monotonic() + 60
    while True:
        text = browser.execute_script("return document.body.innerText")
        if all(word in text for word in words):
            return
        assert time.monotonic() < until, f"{address} does not show {words}, but:\n{text[:3000]}"
        time.sleep(0.3)


def figure(browser, address):
    """Waits until a page shows a picture that a run has kept."""
    shown(browser, address, address.rpartition("/")[2])
    until = time.monotonic() + 60
    find = "return [...document.images].filter(i => i.complete && i.naturalWidth > 400 && i.src.startsWith('blob')).length"
    while not browser.execute_script(find):
        assert time.monotonic() < until, f"{address} shows no picture"
        time.sleep(0.3)


def screenshot(browser, name):
    """Kept only where SCREENSHOTS names a folder: for a person to look at."""
    if folder := os.environ.get("SCREENSHOTS"):
        browser.save_screenshot(f"{folder}/{name}.png")
