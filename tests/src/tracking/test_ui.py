"""MLflow's UI in a real browser: `mlflow ui` typed in the folder of the runs, without options about where they are."""

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
    """The address of an MLflow UI for the runs of this folder, on a free port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    server = subprocess.Popen(
        command, cwd=here, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=1)
                break
            except OSError:
                assert server.poll() is None, "the server ended"
                assert time.monotonic() < deadline, "the server did not start"
                time.sleep(0.3)
        yield address
    finally:
        os.killpg(server.pid, 15)  # the server and its workers, which are a process group
        server.wait(timeout=30)


@pytest.fixture(name="browser")
def large_browser():
    with browser(1600, 1200) as driver:
        yield driver


@pytest.fixture
def sweep_in_ui(command, here, request):
    """The address of an MLflow UI with a sweep of two jobs, the run of the sweep, and those of its jobs."""
    done = command("-m", "model=lstm", "training.epochs=2", "dataset.limit=64", "model.units=4", "seed=0,1")
    assert done.returncode == 0, done.stderr
    all_runs = runs(here, "co2")
    (parent,) = (run for run in all_runs if run.data.tags.get("kind") == "sweep")
    return request.getfixturevalue("ui"), parent, [run for run in all_runs if run is not parent]


def test_the_ui_shows_runs_sweeps_metrics_and_figures(sweep_in_ui, browser):
    address, parent, jobs = sweep_in_ui
    runs_page = f"{address}/#/experiments/{parent.info.experiment_id}/runs"
    wait_for_text(browser, runs_page, "sweep-2-jobs", "co2")
    save_screenshot(browser, "runs")

    run = jobs[0]
    test_mae = f"{run.data.metrics['test/mae']:.2f}"[:4]
    wait_for_text(
        browser, f"{runs_page}/{run.info.run_id}", test_mae, "test/mae", run.info.run_name, "Finished", "sweep-2-jobs"
    )
    save_screenshot(browser, "run")
    wait_for_figure(browser, f"{runs_page}/{run.info.run_id}/artifacts/figures/forecast.png")
    save_screenshot(browser, "figure")

    wait_for_text(
        browser, f"{runs_page}/{parent.info.run_id}", "best/objective", "jobs/finished", *(job.info.run_name for job in jobs)
    )
    save_screenshot(browser, "sweep")
    wait_for_figure(browser, f"{runs_page}/{parent.info.run_id}/artifacts/figures/effects.png")
    save_screenshot(browser, "effects")


@pytest.mark.slow
def test_a_comparison_is_a_self_contained_page(command, here, browser):
    done = command("-m", "model=lstm,rnn", "dataset=co2", "training.epochs=2", "model.units=4", "seed=0,1")
    assert done.returncode == 0, done.stderr
    assert command("to=page.html", module="src.compare").returncode == 0
    wait_for_text(browser, (here / "page.html").as_uri(), "co2, forecasting: test/mae, lower is better", "lstm", "rnn")
    save_screenshot(browser, "comparison")
    assert browser.execute_script("return document.querySelector('svg').getBoundingClientRect().width") > 400
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0

    def first_column():
        cells = "[...document.querySelectorAll('tbody td:first-child')]"
        return browser.execute_script(f"return {cells}.map(cell => cell.textContent)")

    before = first_column()
    assert sorted(before) == ["lstm", "rnn"]
    for order in (["rnn", "lstm"], ["lstm", "rnn"]):
        browser.execute_script("document.querySelector('th').click()")
        assert first_column() == order


def wait_for_text(browser, address, *texts):
    """Open a page, and wait until it shows all the texts."""
    browser.get(address)
    deadline = time.monotonic() + 60
    while True:
        text = browser.execute_script("return document.body.innerText")
        if all(expected in text for expected in texts):
            return
        assert time.monotonic() < deadline, f"{address} does not show {texts}, but:\n{text[:3000]}"
        time.sleep(0.3)


def wait_for_figure(browser, address):
    """Open the page of an artifact, and wait until it shows the figure."""
    wait_for_text(browser, address, address.rpartition("/")[2])
    deadline = time.monotonic() + 60
    find = "return [...document.images].filter(i => i.complete && i.naturalWidth > 400 && i.src.startsWith('blob')).length"
    while not browser.execute_script(find):
        assert time.monotonic() < deadline, f"{address} shows no figure"
        time.sleep(0.3)


def save_screenshot(browser, name):
    """Save a screenshot to the folder that the variable SCREENSHOTS names, if it is set."""
    if folder := os.environ.get("SCREENSHOTS"):
        browser.save_screenshot(f"{folder}/{name}.png")
