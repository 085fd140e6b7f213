"""MLflow's UI in a real browser: `mlflow ui` typed in the folder of the runs, without options about where they are."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.support import expected_conditions
from selenium.webdriver.support.wait import WebDriverWait

from tests.browser import CHROMIUM, DRIVER, browser
from tests.commands import environment, run
from tests.stored import runs

pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="there is no chromium with chromedriver on this machine")
TIMEOUT = 120  # seconds, for a machine with much other work


@contextlib.contextmanager
def serve(folder):
    """The address of an MLflow UI for the runs of a folder, on a free port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    server = subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + TIMEOUT
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
        server.wait(timeout=TIMEOUT)


@pytest.fixture(name="browser")
def large_browser():
    with browser(1600, 1200) as driver:
        yield driver


@pytest.fixture(scope="module")
def sweep_in_ui(tmp_path_factory):
    """An MLflow UI with a sweep of two jobs: its address, the output of the sweep, its run, and those of its jobs."""
    folder = tmp_path_factory.mktemp("ui")
    done = run(folder, "-m", "model=lstm", "training.epochs=3", "dataset.limit=64", "model.units=4", "seed=0,1")
    assert done.returncode == 0, done.stderr
    all_runs = runs(folder, "co2")
    (parent,) = (run for run in all_runs if run.data.tags.get("kind") == "sweep")
    with serve(folder) as address:
        yield address, done.stdout, parent, [run for run in all_runs if run is not parent]


def test_a_person_gets_from_the_home_page_to_the_learning_curves_of_the_best_run(sweep_in_ui, browser):
    address, _, parent, jobs = sweep_in_ui
    best, worst = sorted(jobs, key=lambda job: job.data.metrics["test/mae"])
    browser.get(address)
    click(browser, "Model training")  # the switch that the README names
    click(browser, "co2")
    wait_for_text(browser, None, parent.info.run_name, "Runs on co2:1.0.0")
    save_screenshot(browser, "runs")

    click(browser, "Views")
    click(browser, "forecasting, best first")
    names = best.info.run_name, worst.info.run_name
    text = wait_for_text(browser, None, *names, "test/mae", "seconds", "parameters", "lstm_co2")
    assert text.index(names[0]) < text.index(names[1])
    assert parent.info.run_name not in text  # it has no test metrics
    save_screenshot(browser, "ranking")

    click(browser, best.info.run_name)
    wait_for_text(browser, None, "Description", "lstm on co2, seed", f"mae {best.data.metrics['test/mae']:.4g}"[:8], "Finished")
    save_screenshot(browser, "run")
    click(browser, "Show more")
    wait_for_image(browser, "get-artifact?path=learning_curves.png")
    wait_for_text(browser, None, "exponential smoothing", "src.reproduce run=")
    save_screenshot(browser, "description")

    click(browser, "all its jobs")  # in a new tab
    browser.switch_to.window(browser.window_handles[-1])
    wait_for_text(browser, None, parent.info.run_name, "2 of 2 jobs finished", *(job.info.run_name for job in jobs))
    save_screenshot(browser, "sweep")


@pytest.mark.slow
def test_the_printed_links_open_the_runs_and_their_charts_begin_with_the_curves(sweep_in_ui, browser):
    address, output, parent, jobs = sweep_in_ui
    printed = re.findall("^http://127.0.0.1:5000(/#/.*)$", output, re.MULTILINE)
    assert [link.rpartition("/")[2].partition("?")[0] for link in printed] == [run.info.run_id for run in [*jobs[::-1], parent]]
    wait_for_text(browser, address + printed[-1], parent.info.run_name, "sweep/best/objective")
    first = jobs[-1]
    wait_for_text(browser, address + printed[0], "test/mae", first.info.run_name, "Finished", parent.info.run_name)
    click(browser, "Model metrics")
    text = wait_for_text(browser, None, "epoch/train\n(2)", "epoch/val\n(2)", "test\n(6)")
    assert re.findall(r"^(\S+)\n\(\d+\)$", text, re.MULTILINE)[:3] == ["epoch/train", "epoch/val", "test"]
    save_screenshot(browser, "charts")
    click(browser, "Artifacts")
    click(browser, "learning_curves.png")
    wait_for_image(browser, "blob")
    save_screenshot(browser, "learning_curves")

    wait_for_text(browser, f"{address}/#/experiments/1/models?workflowType=machine_learning", "lstm_co2", first.info.run_name)
    save_screenshot(browser, "models")


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


def click(browser, text):
    """Click what shows a text, once it is there."""
    element = (By.XPATH, f"//*[normalize-space(text())={text!r}]")
    WebDriverWait(browser, TIMEOUT).until(expected_conditions.element_to_be_clickable(element))
    for _ in range(20):  # the page may be drawn anew between finding and clicking
        try:
            browser.find_element(*element).click()
            return
        except WebDriverException:
            time.sleep(0.3)
    raise AssertionError(f"'{text}' cannot be clicked")


def wait_for_text(browser, address, *texts):
    """Open a page, or stay on the current one if that is None; wait until it shows all the texts, and return its text."""
    if address:
        browser.get(address)
    deadline = time.monotonic() + TIMEOUT
    while True:
        text = browser.execute_script("return document.body.innerText")
        if all(expected in text for expected in texts):
            return text
        assert time.monotonic() < deadline, f"{browser.current_url} does not show {texts}, but:\n{text[:3000]}"
        time.sleep(0.3)


def wait_for_image(browser, source):
    """Wait until the page shows a large image whose source contains a text."""
    deadline = time.monotonic() + TIMEOUT
    find = "return [...document.images].filter(i => i.complete && i.naturalWidth > 400 && i.src.includes(arguments[0])).length"
    while not browser.execute_script(find, source):
        assert time.monotonic() < deadline, f"{browser.current_url} shows no image {source}"
        time.sleep(0.3)


def save_screenshot(browser, name):
    """Save a screenshot to the folder that the variable SCREENSHOTS names, if it is set."""
    if folder := os.environ.get("SCREENSHOTS"):
        browser.save_screenshot(f"{folder}/{name}.png")
