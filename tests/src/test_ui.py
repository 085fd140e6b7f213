"""MLflow's own pages, in a real browser: `mlflow ui` typed where the runs were made, without any flag about where they are."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import mlflow
import pytest

from tests.conftest import environment

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
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


@pytest.fixture
def browser(tmp_path_factory):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    profile = tmp_path_factory.mktemp("profile")
    for argument in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync", "window-size=1600,1200",
        "disable-background-networking", "disable-component-update", f"user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(f"--{argument}")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def test_runs_metrics_and_a_figure_are_shown(command, here, ui_after_runs, browser):
    address, found = ui_after_runs
    experiment, run_id = found.info.experiment_id, found.info.run_id

    def shown(path, *words):
        """The text of a page, once it shows all the words."""
        browser.get(f"{address}/#{path}")
        until = time.monotonic() + 60
        while True:
            text = browser.execute_script("return document.body.innerText")
            if all(word in text for word in words):
                return text
            assert time.monotonic() < until, f"{path} does not show {words}, but:\n{text[:3000]}"
            time.sleep(0.3)

    shown(f"/experiments/{experiment}/runs", "lstm-seed0", "co2")
    screenshot(browser, "runs")
    shown(
        f"/experiments/{experiment}/runs/{run_id}",
        f"{found.data.metrics['test/mae']:.2f}"[:4],
        "test/mae",
        "lstm-seed0",
        "Finished",
    )
    screenshot(browser, "run")
    shown(f"/experiments/{experiment}/runs/{run_id}/artifacts/figures/forecast.png", "forecast.png")
    until = time.monotonic() + 60
    find = "return [...document.images].filter(i => i.complete && i.naturalWidth > 400 && i.src.startsWith('blob')).length"
    while not browser.execute_script(find):
        assert time.monotonic() < until, "the figure is not shown"
        time.sleep(0.3)
    screenshot(browser, "figure")


@pytest.fixture
def ui_after_runs(command, here, request):
    done = command("model=lstm", "training.epochs=1", "dataset.limit=64", "model.units=4")
    assert done.returncode == 0, done.stderr
    client = mlflow.MlflowClient(f"sqlite:///{here / 'mlflow.db'}")
    (found,) = client.search_runs([client.get_experiment_by_name("co2").experiment_id])
    return request.getfixturevalue("ui"), found


def screenshot(browser, name):
    """Kept only where SCREENSHOTS names a folder: for a person to look at."""
    if folder := os.environ.get("SCREENSHOTS"):
        browser.save_screenshot(f"{folder}/{name}.png")
