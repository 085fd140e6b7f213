"""Faults: kills, lost files, full disks and unreachable servers cost a run at most the steps since its last checkpoint."""

import json
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time

import mlflow
import pytest

from src.tracking import status
from src.tracking.outbox import Outbox
from src.training import checkpoint
from tests import faults
from tests.commands import ROOT, WEIGHTS_ONLY, environment, start, until
from tests.faults import Server
from tests.stored import client, runs, steps, unfinished

LSTM = ("model=lstm", "model.units=8", "checkpoint.every=20", "checkpoint.unit=steps", *WEIGHTS_ONLY)
PASSWORD = "open sesame, please"
DISK_FULL = """  # src.run on a disk that fills up after the third epoch, except for the reserved space
import errno, pathlib
from src import cli, run
from src.tracking import outbox

write, full = pathlib.Path.write_text, False

def write_text(path, text, *args, **kwargs):
    global full
    full = full or path.name == "event.json" and '"epoch/val/loss"' in text and '"step": 3' in text
    if full and any(outbox.ROOT.glob("*/reserve")):
        raise OSError(errno.ENOSPC, "No space left on device")
    return write(path, text, *args, **kwargs)

pathlib.Path.write_text = write_text
cli.run_command(run.main)
"""


@pytest.fixture
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


def test_killed_run_is_marked_killed_and_resumed(here, command):
    process = start(here, *LSTM, "training.epochs=200", fresh=True)
    until(process, "epoch 3/200")
    process.kill()
    process.wait()
    (run,) = runs(client(here))
    assert run.info.status == "RUNNING"

    assert command("model=cnn", "training.epochs=1", "dataset.limit=64", "training.batch_size=32").returncode == 0
    run = client(here).get_run(run.info.run_id)
    assert run.info.status == "KILLED"
    assert "ended without a status" in run.data.tags["failure"]

    process = start(here, *LSTM, "training.epochs=200")
    assert "interrupted run from epoch" in until(process, "epoch 5/200")
    process.send_signal(signal.SIGTERM)
    process.wait()
    lstm_runs = [run for run in runs(client(here)) if run.data.tags["model"] == "lstm"]
    assert [each.info.run_id for each in lstm_runs] == [run.info.run_id]
    assert lstm_runs[0].info.status == "KILLED"
    artifacts = here / "mlruns/1" / run.info.run_id / "artifacts"
    assert "epoch 2/200" in (artifacts / "run.log").read_text()
    assert "interrupted run from epoch" in (artifacts / "run-2.log").read_text()
    history = steps(client(here), lstm_runs[0])
    assert history == list(range(1, len(history) + 1))  # each epoch once


def test_a_finished_run_is_not_resumed(here, command):
    for _ in range(2):
        assert command(*LSTM, "training.epochs=1").returncode == 0
    assert [run.info.status for run in runs(client(here))] == ["FINISHED", "FINISHED"]
    assert not unfinished(here)


@pytest.mark.slow
def test_resume_never_and_resume_by_id(here, command):
    process = start(here, *LSTM, "training.epochs=6")
    until(process, "epoch 2/6")
    process.kill()
    process.wait()
    (interrupted,) = runs(client(here))
    assert command(*LSTM, "training.epochs=6", "resume=never").returncode == 0
    assert len(runs(client(here))) == 2
    done = command(*LSTM, "training.epochs=5", f"resume={interrupted.info.run_id}")
    assert done.returncode == 2
    assert "is a run with other settings; it was: python -m src.run model=lstm model.units=8" in done.stderr
    done = command(*LSTM, "training.epochs=6", f"resume={interrupted.info.run_id}")
    assert done.returncode == 0, done.stderr
    assert client(here).get_run(interrupted.info.run_id).info.status == "FINISHED"
    done = command(*LSTM, "training.epochs=6", "resume=nonsense")
    assert done.returncode == 2
    assert "resume=nonsense names no run" in done.stderr


def test_a_run_whose_local_files_are_lost_is_resumed_from_mlflow(here, command):
    process = start(here, *LSTM, "training.epochs=30")
    until(process, "epoch 8/30")
    process.send_signal(signal.SIGINT)
    process.wait()
    (interrupted,) = runs(client(here))
    (folder,) = unfinished(here)
    folder.rename(here / "lost")
    done = command(*LSTM, "training.epochs=30")
    assert done.returncode == 0, done.stderr
    assert re.search(r"interrupted run from epoch [2-9], ", done.stdout)
    (run,) = runs(client(here))
    assert (run.info.run_id, run.info.status) == (interrupted.info.run_id, "FINISHED")
    assert steps(client(here), run) == list(range(1, 31))


def test_server_down_at_the_start_receives_everything_later(here, server, command):
    done = command(*LSTM, "training.epochs=3", MLFLOW_TRACKING_URI=server.uri)
    assert done.returncode == 0, done.stderr
    assert "does not answer" in done.stdout + done.stderr
    assert len(unfinished(here)) == 1
    server.start()
    assert command(module="src.sync", MLFLOW_TRACKING_URI=server.uri).returncode == 0
    remote = mlflow.MlflowClient(server.uri)
    (run,) = runs(remote)
    assert run.info.status == "FINISHED"
    assert steps(remote, run) == [1, 2, 3]
    assert "test/mae" in run.data.metrics
    assert not unfinished(here)


@pytest.mark.slow
def test_restarted_server_receives_everything_once(here, server):
    server.start()
    process = start(here, *LSTM, "training.epochs=40", MLFLOW_TRACKING_URI=server.uri)
    until(process, "epoch 5/40")
    server.stop()
    until(process, "epoch 15/40")
    process.send_signal(signal.SIGSTOP)  # a server takes longer to start than the rest of this training
    server.start()
    process.send_signal(signal.SIGCONT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    remote = mlflow.MlflowClient(server.uri)
    (run,) = runs(remote)
    assert run.info.status == "FINISHED"
    assert steps(remote, run) == list(range(1, 41))
    assert not remote.list_artifacts(run.info.run_id, "checkpoints")  # deleted once the run has finished
    assert not unfinished(here)


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "strategy"), [("lstm", "single"), ("cnn", "mirrored")])
def test_run_killed_at_random_moments_ends_the_same(recipe, strategy):
    overrides = faults.overrides(recipe, strategy)
    with faults.folders(2) as (undisturbed, disturbed):
        reference = faults.run_undisturbed(overrides, undisturbed)
        result, repeated = faults.run_with_faults(
            overrides, disturbed, [("kill -9", 17), ("killed while it saves", 33), ("disk full", 52)]
        )
    assert reference.same_as(result)
    assert repeated["kill -9"] <= faults.CHECKPOINT_EVERY
    assert repeated["killed while it saves"] <= faults.CHECKPOINT_EVERY
    assert repeated["disk full"] > faults.CHECKPOINT_EVERY  # no checkpoint could be written, so an older one was used


def test_the_page_of_src_shows_the_table_of_faults():
    readme = (ROOT / "src" / "README.md").read_text(encoding="utf-8")
    header = f"| | {' | '.join([*faults.TABLE_FAULTS, 'server dies'])} | end |"
    rows = readme[readme.index(header) :].split("\n\n")[0].splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == sorted(faults.SHORT_RUNS)
    assert all(row.endswith("| nothing | the same |") for row in rows)


def test_a_checkpoint_that_cannot_be_written_is_reported_and_training_continues(here):
    overrides = [*LSTM, "model.units=256", "checkpoint.every=5", "training.epochs=1", "training.steps_per_epoch=12"]
    done = subprocess.run(
        [sys.executable, "-m", "src.run", *overrides],
        cwd=here, env=environment(), capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000)),  # bytes of a file
    )  # fmt: skip
    assert "A checkpoint could not be written ([Errno 27] File too large); the previous one is kept." in done.stdout
    assert "epoch 1/1" in done.stdout
    (run,) = runs(client(here))
    assert "File too large" in run.data.tags["checkpoint.failure"]


def test_a_run_that_a_full_disk_ended_is_resumed_once_there_is_space(here, command):
    overrides = [*LSTM, "training.epochs=4", "training.steps_per_epoch=20"]
    done = subprocess.run(
        [sys.executable, "-c", DISK_FULL, *overrides], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("No space is left on the disk of mlruns")
    assert done.stderr.count("\n") == 1
    (interrupted,) = runs(client(here))
    assert interrupted.info.status == "FAILED"
    assert interrupted.data.tags["failure"].startswith("DiskFullError: No space is left")
    done = command(*overrides)
    assert done.returncode == 0, done.stderr
    assert "Resuming an interrupted run from epoch 3, step 20" in done.stdout
    (run,) = runs(client(here))
    assert (run.info.run_id, run.info.status) == (interrupted.info.run_id, "FINISHED")
    assert steps(client(here), run) == [1, 2, 3, 4]


@pytest.mark.parametrize("number", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_concurrent_runs_on_one_database(here, number):
    tiny = ("training.epochs=3", "training.steps_per_epoch=5")
    processes = [start(here, *LSTM, *tiny, f"seed={seed}") for seed in range(number)]
    for process in processes:
        output, _ = process.communicate()
        assert process.returncode == 0, output
    finished = runs(client(here))
    assert sorted(run.data.params["seed"] for run in finished) == [str(seed) for seed in range(number)]
    for run in finished:
        assert run.info.status == "FINISHED"
        assert steps(client(here), run) == [1, 2, 3]
        assert "test/mae" in run.data.metrics
    assert not unfinished(here)


class SlowProxy:
    """A TCP proxy that delays what it forwards to a server, by seconds."""

    def __init__(self, port, delay):
        self.port, self.delay, self.listening = port, delay, socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client_side = self.listening.accept()[0]
            except OSError:
                return
            server_side = socket.create_connection(("127.0.0.1", self.port))
            for source, target, delay in ((client_side, server_side, self.delay), (server_side, client_side, 0)):
                threading.Thread(target=self._forward, args=(source, target, delay), daemon=True).start()

    @staticmethod
    def _forward(source, target, delay):
        try:
            while chunk := source.recv(1 << 16):
                time.sleep(delay)
                target.sendall(chunk)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass


@pytest.mark.slow
def test_a_slow_server_does_not_hold_up_the_training(here, server):
    server.start()
    proxy = SlowProxy(server.port, delay=0.5)
    process = start(here, *LSTM, "training.epochs=30", MLFLOW_TRACKING_URI=proxy.uri)
    until(process, "epoch 30/30")
    process.send_signal(signal.SIGSTOP)
    remote = mlflow.MlflowClient(server.uri)
    uploaded = [steps(remote, run) for run in runs(remote)]
    process.send_signal(signal.SIGCONT)
    assert len(uploaded) < 1 or len(uploaded[0]) < 30  # the training was not waiting for it
    output, _ = process.communicate()
    proxy.listening.close()
    assert process.returncode == 0, output
    (run,) = runs(remote)
    assert run.info.status == "FINISHED"
    assert steps(remote, run) == list(range(1, 31))


def test_password_is_sent_to_the_server_only(here, tmp_path_factory, command):
    folder = tmp_path_factory.mktemp("server")
    settings = folder / "auth.ini"
    settings.write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/auth.db\nadmin_username = admin\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    server = Server(
        folder, "--app-name", "basic-auth",
        MLFLOW_AUTH_CONFIG_PATH=str(settings), MLFLOW_AUTH_ADMIN_PASSWORD=PASSWORD, MLFLOW_FLASK_SERVER_SECRET_KEY="for tests",
    )  # fmt: skip
    server.start()
    try:
        account = {"MLFLOW_TRACKING_URI": server.uri, "MLFLOW_TRACKING_USERNAME": "admin"}
        wrong = command(*LSTM, "training.epochs=1", **account, MLFLOW_TRACKING_PASSWORD="a wrong one")
        assert wrong.returncode == 0, wrong.stderr
        assert "does not answer" in wrong.stdout
        assert "You are not authenticated" in wrong.stdout
        assert len(unfinished(here)) == 1
        # A run name that contains the password, by mistake: it is redacted.
        right = command(
            *LSTM, "training.epochs=2", f"tracking.run_name='with {PASSWORD}'",
            **account, MLFLOW_TRACKING_PASSWORD=PASSWORD,
        )  # fmt: skip
        assert right.returncode == 0, right.stderr
        synced = faults.sync(here, server.uri, MLFLOW_TRACKING_USERNAME="admin", MLFLOW_TRACKING_PASSWORD=PASSWORD)
        assert synced.returncode == 0, synced.stderr
        assert not unfinished(here)
        written = b"".join(path.read_bytes() for path in [*folder.rglob("*"), *here.rglob("*")] if path.is_file())
        assert b"with ***" in written
        assert PASSWORD.encode() not in written
        assert PASSWORD not in right.stdout + right.stderr
    finally:
        server.stop()


def test_missing_server_is_reported_by_runs_that_load_another_run(here, server, command):
    done = command("model=gan", MLFLOW_TRACKING_URI=server.uri)
    assert done.returncode == 2
    assert f"MLflow at {server.uri} does not answer" in done.stderr
    assert "an earlier run is needed from it" in done.stderr


def test_a_deleted_experiment_is_reported_in_one_sentence(here, command):
    store = client(here)
    store.delete_experiment(store.create_experiment("co2"))
    done = command(*LSTM, "training.epochs=1")
    assert done.returncode == 2
    assert "The experiment 'co2' was deleted in MLflow; type mlflow experiments restore --experiment-id" in done.stderr


def test_an_outbox_is_locked_by_one_process(here):
    outbox = Outbox.create(fingerprint="a", uri="b")
    assert not Outbox(outbox.folder).try_lock()
    outbox.lock.release()
    assert Outbox(outbox.folder).try_lock()


def test_a_run_that_was_killed_before_it_started_leaves_nothing(here):
    status.sync()
    outbox = Outbox.create(fingerprint="a", uri="b")
    outbox.lock.release()
    assert status.sync() == []
    assert not outbox.folder.exists()


def test_a_half_written_event_is_dropped(here):
    outbox = Outbox.create(fingerprint="a", uri="b")
    with outbox.add_event("tags", tags={"written": "yes"}):
        pass
    with pytest.raises(RuntimeError), outbox.add_event("tags", tags={"written": "no"}):
        raise RuntimeError
    outbox.lock.release()
    reopened = Outbox(outbox.folder)
    assert reopened.try_lock()
    with reopened.add_event("tags", tags={"written": "later"}):
        pass
    assert [event.payload["tags"]["written"] for event in reopened.pending()] == ["yes", "later"]


def test_a_metric_is_logged_once_for_each_step(here):
    outbox = Outbox.create(fingerprint="a", uri="b")
    outbox.add_metrics({"loss": 1.0, "rate": 2.0}, step=1, time=0)
    (outbox.folder / "last_steps.json").write_text("{}")  # as if the process had been killed before it wrote this file
    outbox.lock.release()
    reopened = Outbox(outbox.folder)
    assert reopened.try_lock()
    reopened.add_metrics({"loss": 1.0, "rate": 2.0, "new": 3.0}, step=1, time=1)
    reopened.add_metrics({"loss": 0.5}, step=2, time=2)
    logged = [(event.payload["step"], event.payload["values"]) for event in reopened.pending()]
    assert logged == [(1, {"loss": 1.0, "rate": 2.0}), (1, {"new": 3.0}), (2, {"loss": 0.5})]


def test_an_outbox_that_another_process_deletes_is_left_alone(here):
    outbox = Outbox.create(fingerprint="a", uri="b")
    other = Outbox(outbox.folder)
    outbox.delete()
    assert other.metadata == {}
    assert not other.try_lock()
    assert not list((here / "mlruns/unfinished").iterdir())
    assert Outbox.all() == []


def test_an_outbox_of_an_earlier_version_is_read(here):
    folder = here / "mlruns/unfinished/0123"
    events = {"1": {"kind": "begin", "time": 0}, "2": {"kind": "files", "where": "figures"}, "3": {"kind": "again"}}
    for number, event in events.items():
        (folder / "outbox" / number).mkdir(parents=True)
        (folder / "outbox" / number / "event.json").write_text(json.dumps(event))
    (folder / "said.json").write_text(json.dumps({"epoch/val/loss": 7}))
    (folder / "journal.json").write_text(json.dumps({"uri": "b", "begun": True, "over": True}))
    (outbox,) = Outbox.all()
    assert outbox.metadata == {"uri": "b", "started": True, "closed": True}
    assert outbox.last_step("epoch/val/") == 7
    assert [event.kind for event in outbox.pending()] == ["start", "files", "resume"]
    assert outbox.pending()[1].payload == {"artifact_path": "figures"}
    assert outbox.try_lock()


def test_an_unreadable_checkpoint_is_skipped(here, caplog):
    (here / "000001-00000002.npz").write_bytes(b"not an archive")
    assert checkpoint.read(here) is None
    assert "cannot be read" in caplog.text
