"""The reason for the use of a private argument of Ray: where this test fails, a public one may do instead."""

import inspect

import pytest


def test_no_public_argument_sets_the_address_of_a_local_cluster():
    ray = pytest.importorskip("ray")
    names = set(inspect.signature(ray.init).parameters)
    assert {name for name in names if {"address", "host", "ip"} & set(name.split("_"))} == {"address", "dashboard_host"}
