"""The workers of a cluster meet, agree, and notice when one of them is gone. Here they are threads."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from src.cluster import Addresses, Cluster
from src.cluster.cluster import _listen
from src.cluster.connection import PART, Connection
from src.cluster.local import free_ports
from src.errors import UserError, WorkerError


@pytest.fixture
def workers():
    """workers(work, count=3, …): what `work(cluster)` returns, or the exception that it raises, for each worker."""

    def run(work, count=3, wait=5.0, timeout=5.0, absent=()):
        addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(count))

        def of(index):
            cluster = Cluster(Addresses(addresses, index), timeout)
            try:
                cluster.meet(wait)
                result = work(cluster)
            except (UserError, ZeroDivisionError) as error:
                cluster.finish(error)
                return error
            cluster.finish()
            return result

        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(of, [index for index in range(count) if index not in absent]))

    return run


def test_all_learn_what_each_has(workers):
    assert workers(lambda cluster: cluster.exchange({"index": cluster.index})) == [[{"index": i} for i in range(3)]] * 3


def test_the_chief_gathers_and_broadcasts(workers):
    def work(cluster):
        gathered = cluster.gather(bytes([cluster.index]) * 300_000)
        return gathered, cluster.broadcast(b"from the chief" if cluster.is_chief else b"")

    chief, *others = workers(work)
    assert chief == ([bytes([i]) * 300_000 for i in range(3)], b"from the chief")
    assert others == [([], b"from the chief")] * 2


def test_messages_keep_their_order(workers):
    def work(cluster):
        return [cluster.exchange(number)[0] for number in range(200)]

    assert workers(work) == [list(range(200))] * 3


def test_workers_report_to_the_chief(workers):
    reported = []

    def work(cluster):
        with cluster.reports_to(lambda *report: reported.append(report)):
            cluster.exchange("listening")
            if not cluster.is_chief:
                cluster.report({"cpu": float(cluster.index)})
            cluster.exchange("done")  # reports come before it

    workers(work)
    assert sorted(reported) == [(1, {"cpu": 1.0}), (2, {"cpu": 2.0})]


def test_absent_workers_are_named(workers):
    chief, _ = workers(lambda cluster: None, wait=0.5, absent=(2,))
    assert isinstance(chief, UserError)
    assert "Worker 2 (127.0.0.1:" in str(chief)
    assert "cannot be reached after 0 s; type the command there, too, or a larger strategy.wait." in str(chief)


def test_an_absent_chief_is_named(workers):
    (other,) = workers(lambda cluster: None, count=2, wait=0.5, absent=(0,))
    assert str(other).startswith("The chief (127.0.0.1:")


def test_strangers_at_the_port_are_ignored(workers):
    def work(cluster):
        return cluster.exchange(cluster.index)

    original = Cluster._accept

    def with_stranger(self, host, port, deadline, wait):
        threading.Thread(
            target=lambda: (time.sleep(0.1), socket.create_connection((host, port)).sendall(b"GET / HTTP/1.1")), daemon=True
        ).start()
        original(self, host, port, deadline, wait)

    Cluster._accept = with_stranger
    try:
        assert workers(work) == [[0, 1, 2]] * 3
    finally:
        Cluster._accept = original


def test_two_workers_with_one_index_are_told(workers):
    def work(cluster):
        return cluster.exchange("on")

    original = Cluster._connect

    def as_worker_1(self, *arguments):
        self.addresses = Addresses(self.addresses.workers, 1)
        original(self, *arguments)

    Cluster._connect = as_worker_1
    try:
        chief, *others = workers(work, wait=1.0)
    finally:
        Cluster._connect = original
    assert "Worker 2 (127.0.0.1:" in str(chief)
    assert sum("there is a worker 1 already; correct strategy.index" in str(other) for other in others) == 1


def test_messages_may_be_long(workers):
    content = bytes(3 * PART + 1)
    assert workers(lambda cluster: cluster.broadcast(content) == content) == [True] * 3


def test_a_failure_of_one_ends_all_in_its_words(workers):
    def work(cluster):
        if cluster.index == 1:
            raise UserError("The data is not there.")
        while True:
            cluster.exchange("on")

    for error in (errors := workers(work)):
        assert isinstance(error, UserError)
    assert str(errors[1]) == "The data is not there."
    for index in (0, 2):
        assert isinstance(errors[index], WorkerError)
        assert str(errors[index]).startswith("Worker 1 (127.0.0.1:")
        assert "failed: The data is not there. Once that is corrected, type the same command again" in str(errors[index])


def test_a_failure_that_is_none_of_the_user_has_its_type(workers):
    def work(cluster):
        if cluster.is_chief:
            raise ZeroDivisionError("division by zero")
        cluster.broadcast()

    assert "failed: ZeroDivisionError: division by zero" in str(workers(work)[1])


def test_a_worker_whose_process_ends_is_noticed_at_once(workers):
    seconds = {}

    def work(cluster):
        if cluster.index == 2:
            for connection in cluster._connections.values():
                connection._socket.shutdown(socket.SHUT_RDWR)  # as the system does
            return
        start = time.monotonic()
        try:
            cluster.exchange("on")
            cluster.exchange("on")
        finally:
            seconds[cluster.index] = time.monotonic() - start

    errors = workers(work, timeout=30.0)
    assert all(str(errors[index]).startswith("Worker 2 (127.0.0.1:") for index in (0, 1))
    assert "has ended" in str(errors[0])
    assert max(seconds.values()) < 2


def test_a_worker_may_come_while_the_others_learn_that_one_has_ended():
    cluster = Cluster(Addresses(("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "127.0.0.1:4"), 0), timeout=5.0)
    learned = []

    class Other:
        def send(self, kind, content):
            learned.append(content)
            cluster._connections[3] = self

    cluster._connections = {1: Other(), 2: Other()}
    cluster._fail(2, "has ended.")
    assert learned == [b"Worker 2 (127.0.0.1:3) has ended."]


def test_nobody_waits_for_a_message_of_a_connection_that_has_failed_in_any_way(monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()

    def fail(event):
        raise ZeroDivisionError

    connection = Connection(ours, 5.0, on_failure=fail, on_report=lambda content: None)
    theirs.close()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(connection.receive).result(timeout=5) is None
    connection.close()


def test_a_worker_without_a_sign_of_life_is_noticed_in_time(workers):
    def work(cluster):
        if cluster.index == 1:
            for connection in cluster._connections.values():
                connection.send = lambda *message: None  # as if its machine were gone
            time.sleep(2)
            return None
        start = time.monotonic()
        with pytest.raises(WorkerError, match=r"Worker 1 .* has sent no sign of life for 1 s"):
            cluster.exchange("on")
        return time.monotonic() - start

    assert workers(work, count=2, timeout=1.0)[0] == pytest.approx(1, abs=0.5)


def test_signs_of_life_keep_an_idle_connection(workers):
    def work(cluster):
        time.sleep(1.5)
        return cluster.exchange("on")

    assert workers(work, count=2, timeout=0.5) == [["on"] * 2] * 2


def test_differences_are_named(workers):
    def work(cluster):
        cluster.check_equal({"seed": cluster.index // 2, "data": "abc", "model": "cnn"}, "the same settings")

    for error in workers(work):
        assert isinstance(error, UserError)
        assert str(error).startswith("Worker 2 (127.0.0.1:")
        assert "has seed=1 instead of 0; start all with the same settings." in str(error)


def test_workers_that_are_alike_go_on(workers):
    assert workers(lambda cluster: cluster.check_equal({"seed": 0}, "the same settings")) == [None] * 3


def test_an_error_while_another_worker_fails_is_explained(workers):
    def work(cluster):
        if cluster.index == 1:
            raise UserError("Out of memory.")
        failed = threading.Event()
        cluster.on_failure = lambda message: failed.set()
        with cluster.explain_failure():
            failed.wait(5)
            raise ZeroDivisionError  # as TensorFlow raises one of its own

    assert "failed: Out of memory." in str(workers(work, count=2)[0])


def test_other_errors_stay_as_they_are():
    cluster = Cluster(Addresses(("a:1", "b:1"), 0), timeout=0.1)
    with pytest.raises(ZeroDivisionError), cluster.explain_failure():
        raise ZeroDivisionError


def test_the_chief_needs_an_address_of_this_machine():
    cluster = Cluster(Addresses(("192.0.2.1:5000", "192.0.2.2:5000"), 0), timeout=1)  # of documentation (RFC 5737)
    with pytest.raises(UserError, match=r"cannot listen at 192.0.2.1:5000 .*; its address has to be one of this machine"):
        cluster.meet(wait=1)


def test_the_name_of_the_chief_may_become_known_later(monkeypatch):
    (port,), create_server = free_ports(1), socket.create_server
    failures = [socket.gaierror(socket.EAI_NONAME, "Name or service not known")] * 2

    def resolve(address, **options):
        if failures:
            raise failures.pop()
        return create_server(address, **options)

    monkeypatch.setattr(socket, "create_server", resolve)
    with _listen("127.0.0.1", port, time.monotonic() + 5) as server:
        assert server.getsockname() == ("127.0.0.1", port)


def test_a_chief_whose_name_stays_unknown_ends():
    cluster = Cluster(Addresses(("nowhere.invalid:5000", "b:1"), 0), timeout=1)  # a name that nobody has (RFC 2606)
    with pytest.raises(UserError, match=r"cannot listen at nowhere.invalid:5000 .*; its address has to be one of this machine"):
        cluster.meet(wait=0.3)
