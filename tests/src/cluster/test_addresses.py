"""Where the workers are: settings, TF_CONFIG as the operators of Kubernetes write it, and SLURM."""

import json
import re

import pytest
import yaml

from src import config
from src.cluster import Addresses, find
from src.config.schema import MultiWorker
from src.errors import UserError
from tests.commands import ROOT


def settings(**values):
    return MultiWorker(
        **{"name": "multi_worker", "workers": None, "index": None, "local": None, "wait": 1, "timeout": 1, **values}
    )


@pytest.fixture(autouse=True)
def nowhere(monkeypatch):
    for name in ("TF_CONFIG", "SLURM_STEP_NODELIST", "SUBMITIT_LOCAL_NTASKS"):
        monkeypatch.delenv(name, raising=False)


def of_tf_config(monkeypatch, cluster, kind, index):
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}}))
    return find(settings())


def test_settings_come_first(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "nonsense")
    assert find(settings(workers=["a:1", "b:2"], index=1)) == Addresses(("a:1", "b:2"), 1)


def test_tf_config_with_workers_alone(monkeypatch):
    assert of_tf_config(monkeypatch, {"worker": ["a:1", "b:1"]}, "worker", 1) == Addresses(("a:1", "b:1"), 1)


@pytest.mark.parametrize("chief", ["chief", "master"])
def test_tf_config_with_a_chief(monkeypatch, chief):
    cluster = {"worker": ["job-worker-0.ns.svc:2222", "job-worker-1.ns.svc:2222"], chief: ["job-chief-0.ns.svc:2222"]}
    workers = ("job-chief-0.ns.svc:2222", "job-worker-0.ns.svc:2222", "job-worker-1.ns.svc:2222")
    assert of_tf_config(monkeypatch, cluster, "worker", 1) == Addresses(workers, 2)
    assert of_tf_config(monkeypatch, cluster, chief, 0) == Addresses(workers, 0)


def test_the_manifest_of_the_page_on_kubernetes(monkeypatch):
    """With TF_CONFIG as the training operator of Kubeflow makes it (genClusterSpec in its tensorflow.go)."""
    job = yaml.safe_load(
        re.search(r"```yaml\n(apiVersion: kubeflow.*?)```", (ROOT / "src/README.md").read_text("utf-8"), re.S)[1]
    )
    ((role, replicas),) = job["spec"]["tfReplicaSpecs"].items()
    (container,) = replicas["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert container["name"] == "tensorflow"
    name = f"{job['metadata']['name']}-{role.lower()}-{{}}.default.svc:{ports['tfjob-port']}"
    names = [name.format(index) for index in range(replicas["replicas"])]
    for index in range(replicas["replicas"]):
        task = {"type": role.lower(), "index": index}
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {role.lower(): names}, "task": task, "environment": "cloud"}))
        (run,) = config.parse(container["command"][3:]).jobs
        assert find(run.strategy) == Addresses(tuple(names), index)


@pytest.mark.parametrize("index", ["0", 0])  # Kubeflow writes a number, others a text
def test_the_index_may_be_a_text(monkeypatch, index):
    assert of_tf_config(monkeypatch, {"worker": ["a:1", "b:1"]}, "worker", index).index == 0


def test_slurm_gives_the_tasks_of_a_step(monkeypatch):
    variables = {
        "SLURM_STEP_NODELIST": "node[1-2]", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
        "SLURM_PROCID": "3", "SLURM_JOB_ID": "1402", "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert find(settings()) == Addresses(("node1:20032", "node1:20033", "node2:20032", "node2:20033"), 3)
    monkeypatch.setenv("SLURM_JOB_ID", "1403")  # may be on the same nodes
    assert find(settings()).workers[:2] == ("node1:20048", "node1:20049")


def test_submitit_gives_the_tasks_of_a_job_on_this_machine(monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NODELIST", "node1")  # submitit runs within a job of SLURM
    for name, value in {"NTASKS": "2", "GLOBALID": "1", "JOB_ID": "1402"}.items():
        monkeypatch.setenv(f"SUBMITIT_LOCAL_{name}", value)
    assert find(settings()) == Addresses(("127.0.0.1:20032", "127.0.0.1:20033"), 1)


@pytest.mark.parametrize(
    ("cluster", "task", "sentence"),
    [
        ({"worker": ["a:1", "b:1"], "ps": ["c:1"]}, ("worker", 0), "has the roles ps, but only a chief and workers train here"),
        ({"worker": ["a:1", "b:1"]}, ("chief", 0), "cannot be read"),
        ({"worker": ["a:1", "b:1"]}, ("worker", 2), "has 2 workers, so there is no worker 2"),
        ({"worker": ["a:1", "b"]}, ("worker", 0), "'b' is no address; write it like 10.0.0.5:5000"),
        ({"worker": ["a:1", "a:1"]}, ("worker", 0), "names a:1 twice"),
        ({"worker": ["a:1"]}, ("worker", 0), "names only one worker; on one machine, type strategy=single"),
    ],
)
def test_an_impossible_tf_config_is_one_sentence(monkeypatch, cluster, task, sentence):
    with pytest.raises(UserError, match=sentence):
        of_tf_config(monkeypatch, cluster, *task)


def test_local_workers_are_started_by_the_command():
    with pytest.raises(UserError, match=r"strategy\.local starts workers from the command line alone"):
        find(settings(local=2))


def test_no_cluster_is_one_sentence():
    with pytest.raises(UserError, match=r"finds no cluster: .*; type strategy.workers=\[host:port,…\] and strategy.index="):
        find(settings())


@pytest.mark.parametrize(
    ("workers", "local"),
    [(("127.0.0.1:1", "localhost:2"), True), (("[::1]:1", "127.0.0.2:1"), True), (("10.0.0.1:1", "b:1"), False)],
)
def test_addresses_of_this_machine(workers, local):
    assert Addresses(workers, 0).are_local == local
