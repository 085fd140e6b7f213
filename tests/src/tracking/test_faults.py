"""What can go wrong with a run, and what is lost by it: nothing but the steps since the last checkpoint."""

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
from src.tracking.outbox import Journal
from src.training import checkpoint
from tests import faults
from tests.commands import ROOT, environment, start, until
from tests.faults import Server
from tests.stored import client, runs, steps, unfinished

LSTM = ("model=lstm", "model.units=8", "checkpoint.every=20", "checkpoint.unit=steps", "tracking.log_model=false")
PASSWORD = "open sesame, please"
FULL = """  # src.run, on a disk that gets full after the third epoch; what is reserved can still be made use of
import errno, pathlib
from src import cli, run
from src.tracking import outbox

write, full = pathlib.Path.write_text, False

def write_text(path, text, *more, **named):
    global full
    full = full or path.name == "event.json" and '"val/loss"' in text and '"step": 3' in text
    if full and any(outbox.ROOT.glob("*/reserve")):
        raise OSError(errno.ENOSPC, "No space left on device")
    return write(path, text, *more, **named)

pathlib.Path.write_text = write_text
cli.run_command(run.main)
"""


@pytest.fixture
def server(tmp_path_factory):
    there = Server(tmp_path_factory.mktemp("server"))
    yield there
    there.stop()


def test_a_killed_run_is_closed_by_the_next_command_and_goes_on_when_it_is_typed_again(here, command):
    process = start(here, *LSTM, "training.epochs=200", fresh=True)
    until(process, "epoch 3/200")
    process.kill()
    process.wait()
    (run,) = runs(client(here))
    assert run.info.status == "RUNNING"

    assert command("model=cnn", "training.epochs=1", "dataset.limit=64", "training.batch_size=32").returncode == 0
    run = client(here).get_run(run.info.run_id)
    assert run.info.status == "KILLED"
    assert "without a word" in run.data.tags["failure"]

    process = start(here, *LSTM, "training.epochs=200")
    assert "goes on from epoch" in until(process, "epoch 5/200")
    process.send_signal(signal.SIGTERM)
    process.wait()
    found = [other for other in runs(client(here)) if other.data.tags["model"] == "lstm"]
    assert [other.info.run_id for other in found] == [run.info.run_id]
    assert found[0].info.status == "KILLED"
    kept = here / "mlruns/1" / run.info.run_id / "artifacts"
    assert "epoch 2/200" in (kept / "run.log").read_text()
    assert "goes on from epoch" in (kept / "run-2.log").read_text()
    history = steps(client(here), found[0])
    assert history == list(range(1, len(history) + 1))  # each epoch once


def test_what_has_finished_is_not_gone_on_with(here, command):
    for _ in range(2):
        assert command(*LSTM, "training.epochs=1").returncode == 0
    assert [run.info.status for run in runs(client(here))] == ["FINISHED", "FINISHED"]
    assert not unfinished(here)


@pytest.mark.slow
def test_never_begins_afresh_and_an_id_names_the_run(here, command):
    process = start(here, *LSTM, "training.epochs=6")
    until(process, "epoch 2/6")
    process.kill()
    process.wait()
    (cut,) = runs(client(here))
    assert command(*LSTM, "training.epochs=6", "resume=never").returncode == 0
    assert len(runs(client(here))) == 2
    done = command(*LSTM, "training.epochs=5", f"resume={cut.info.run_id}")
    assert done.returncode == 2
    assert "is a run with other settings; it was: python -m src.run model=lstm model.units=8" in done.stderr
    done = command(*LSTM, "training.epochs=6", f"resume={cut.info.run_id}")
    assert done.returncode == 0, done.stderr
    assert client(here).get_run(cut.info.run_id).info.status == "FINISHED"
    done = command(*LSTM, "training.epochs=6", "resume=nonsense")
    assert done.returncode == 2
    assert "resume=nonsense names no run" in done.stderr


def test_it_goes_on_where_the_local_files_are_gone(here, command):
    process = start(here, *LSTM, "training.epochs=30")
    until(process, "epoch 8/30")
    process.send_signal(signal.SIGINT)
    process.wait()
    (cut,) = runs(client(here))
    (folder,) = unfinished(here)
    folder.rename(here / "lost")
    done = command(*LSTM, "training.epochs=30")
    assert done.returncode == 0, done.stderr
    assert re.search(r"goes on from epoch [2-9], ", done.stdout)
    (run,) = runs(client(here))
    assert (run.info.run_id, run.info.status) == (cut.info.run_id, "FINISHED")
    assert steps(client(here), run) == list(range(1, 31))


def test_a_server_that_is_away_at_the_start_gets_everything_later(here, server, command):
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
def test_a_server_that_dies_and_comes_back_has_everything_once(here, server):
    server.start()
    process = start(here, *LSTM, "training.epochs=40", MLFLOW_TRACKING_URI=server.uri)
    until(process, "epoch 5/40")
    server.stop()
    until(process, "epoch 15/40")
    process.send_signal(signal.SIGSTOP)  # a server takes longer to start than the rest of this training
    server.start()
    process.send_signal(signal.SIGCONT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    remote = mlflow.MlflowClient(server.uri)
    (run,) = runs(remote)
    assert run.info.status == "FINISHED"
    assert steps(remote, run) == list(range(1, 41))
    assert not remote.list_artifacts(run.info.run_id, "checkpoints")  # of no use any more
    assert not unfinished(here)


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "strategy"), [("lstm", "single"), ("cnn", "mirrored")])
def test_killed_at_random_moments_it_ends_the_same(recipe, strategy):
    words = faults.arguments(recipe, strategy)
    with faults.folders(2) as (whole, cut):
        reference = faults.alone(words, whole)
        result, lost = faults.suffer(words, cut, [("kill -9", 17), ("killed while it saves", 33), ("disk full", 52)])
    assert reference.same_as(result)
    assert lost["kill -9"] <= faults.EVERY
    assert lost["killed while it saves"] <= faults.EVERY
    assert lost["disk full"] > faults.EVERY  # none could be written, so it had to be the one before


def test_the_page_of_src_shows_the_table_of_faults():
    readme = (ROOT / "src" / "README.md").read_text(encoding="utf-8")
    head = f"| | {' | '.join([*faults.IN_TURN, 'server dies'])} | end |"
    rows = readme[readme.index(head) :].split("\n\n")[0].splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == sorted(faults.SMALL)
    assert all(row.endswith("| nothing | the same |") for row in rows)


def test_what_a_full_disk_does_not_take_is_said_and_the_training_goes_on(here):
    words = [*LSTM, "model.units=256", "checkpoint.every=5", "training.epochs=1", "training.steps_per_epoch=12"]
    done = subprocess.run(
        [sys.executable, "-m", "src.run", *words],
        cwd=here, env=environment(), capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000)),  # bytes of a file
    )  # fmt: skip
    assert "A checkpoint could not be written ([Errno 27] File too large); the one before it stands." in done.stdout
    assert "epoch 1/1" in done.stdout
    (run,) = runs(client(here))
    assert "File too large" in run.data.tags["checkpoint.failure"]


def test_a_run_that_a_full_disk_ends_goes_on_once_there_is_room(here, command):
    words = [*LSTM, "training.epochs=4", "training.steps_per_epoch=20"]
    done = subprocess.run([sys.executable, "-c", FULL, *words], env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("No space is left on the disk of mlruns")
    assert done.stderr.count("\n") == 1
    (cut,) = runs(client(here))
    assert cut.info.status == "FAILED"
    assert cut.data.tags["failure"].startswith("DiskFullError: No space is left")
    done = command(*words)
    assert done.returncode == 0, done.stderr
    assert "it goes on from epoch 3, step 20" in done.stdout
    (run,) = runs(client(here))
    assert (run.info.run_id, run.info.status) == (cut.info.run_id, "FINISHED")
    assert steps(client(here), run) == [1, 2, 3, 4]


def test_eight_processes_on_one_file_lose_nothing(here):
    processes = [start(here, *LSTM, f"seed={seed}", "training.epochs=3", "training.steps_per_epoch=5") for seed in range(8)]
    for process in processes:
        said, _ = process.communicate()
        assert process.returncode == 0, said
    found = runs(client(here))
    assert sorted(run.data.params["seed"] for run in found) == [str(seed) for seed in range(8)]
    for run in found:
        assert run.info.status == "FINISHED"
        assert steps(client(here), run) == [1, 2, 3]
        assert "test/mae" in run.data.metrics
    assert not unfinished(here)


class Slow:
    """Passes on to a server what it is told, seconds later."""

    def __init__(self, port, delay):
        self.port, self.delay, self.listening = port, delay, socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near = self.listening.accept()[0]
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self.port))
            for source, target, delay in ((near, far, self.delay), (far, near, 0)):
                threading.Thread(target=self._pass, args=(source, target, delay), daemon=True).start()

    @staticmethod
    def _pass(source, target, delay):
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
    slow = Slow(server.port, delay=0.5)
    process = start(here, *LSTM, "training.epochs=30", MLFLOW_TRACKING_URI=slow.uri)
    until(process, "epoch 30/30")
    process.send_signal(signal.SIGSTOP)
    remote = mlflow.MlflowClient(server.uri)
    known = [steps(remote, run) for run in runs(remote)]
    process.send_signal(signal.SIGCONT)
    assert len(known) < 1 or len(known[0]) < 30  # the training was not waiting for it
    said, _ = process.communicate()
    slow.listening.close()
    assert process.returncode == 0, said
    (run,) = runs(remote)
    assert run.info.status == "FINISHED"
    assert steps(remote, run) == list(range(1, 31))


def test_a_server_that_wants_a_password_gets_it_and_nobody_else(here, tmp_path_factory, command):
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
        # A name that holds the password: somebody's mistake, and still it is not kept.
        right = command(
            *LSTM, "training.epochs=2", f"tracking.run_name='with {PASSWORD}'",
            **account, MLFLOW_TRACKING_PASSWORD=PASSWORD,
        )  # fmt: skip
        assert right.returncode == 0, right.stderr
        found = faults.send(here, server.uri, MLFLOW_TRACKING_USERNAME="admin", MLFLOW_TRACKING_PASSWORD=PASSWORD)
        assert found.returncode == 0, found.stderr
        assert not unfinished(here)
        told = b"".join(path.read_bytes() for path in [*folder.rglob("*"), *here.rglob("*")] if path.is_file())
        assert b"with ***" in told
        assert PASSWORD.encode() not in told
        assert PASSWORD not in right.stdout + right.stderr
    finally:
        server.stop()


def test_what_needs_an_earlier_run_says_so_where_the_server_is_away(here, server, command):
    done = command("model=gan", MLFLOW_TRACKING_URI=server.uri)
    assert done.returncode == 2
    assert f"MLflow at {server.uri} does not answer" in done.stderr
    assert "earlier run that is needed here" in done.stderr


def test_a_deleted_experiment_is_answered_in_one_sentence(here, command):
    store = client(here)
    store.delete_experiment(store.create_experiment("co2"))
    done = command(*LSTM, "training.epochs=1")
    assert done.returncode == 2
    assert "The experiment 'co2' was deleted in MLflow; type mlflow experiments restore --experiment-id" in done.stderr


def test_a_journal_is_claimed_by_one_process(here):
    journal = Journal.new(fingerprint="a", uri="b")
    assert not Journal(journal.folder).claim()
    journal.lock.release()
    assert Journal(journal.folder).claim()


def test_a_run_that_was_killed_before_it_began_leaves_nothing(here):
    status.settle()
    journal = Journal.new(fingerprint="a", uri="b")
    journal.lock.release()
    assert status.settle() == []
    assert not journal.folder.exists()


def test_what_was_half_written_is_not_told(here):
    journal = Journal.new(fingerprint="a", uri="b")
    with journal.event("tags", tags={"told": "yes"}):
        pass
    with pytest.raises(RuntimeError), journal.event("tags", tags={"told": "no"}):
        raise RuntimeError
    journal.lock.release()
    again = Journal(journal.folder)
    assert again.claim()
    with again.event("tags", tags={"told": "later"}):
        pass
    assert [event.facts["tags"]["told"] for event in again.pending()] == ["yes", "later"]


def test_what_was_told_is_not_told_again(here):
    journal = Journal.new(fingerprint="a", uri="b")
    journal.metrics({"loss": 1.0, "rate": 2.0}, step=1, time=0)
    (journal.folder / "said.json").write_text("{}")  # as if it had been killed before it could note that
    journal.lock.release()
    again = Journal(journal.folder)
    assert again.claim()
    again.metrics({"loss": 1.0, "rate": 2.0, "new": 3.0}, step=1, time=1)
    again.metrics({"loss": 0.5}, step=2, time=2)
    told = [(event.facts["step"], event.facts["values"]) for event in again.pending()]
    assert told == [(1, {"loss": 1.0, "rate": 2.0}), (1, {"new": 3.0}), (2, {"loss": 0.5})]


def test_a_journal_that_another_process_removes_is_left_alone(here):
    journal = Journal.new(fingerprint="a", uri="b")
    other = Journal(journal.folder)
    journal.remove()
    assert other.facts == {}
    assert not other.claim()
    assert not list((here / "mlruns/unfinished").iterdir())
    assert Journal.all() == []


def test_a_checkpoint_that_cannot_be_read_is_passed_over(here, caplog):
    (here / "000001-00000002.npz").write_bytes(b"nothing of the kind")
    assert checkpoint.read(here) is None
    assert "cannot be read" in caplog.text
