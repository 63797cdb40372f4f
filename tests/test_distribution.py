"""Several devices and processes learn what one device does from the same batches.

Each way to train runs in processes of its own (distributed.py): devices are made when the backend wakes up.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from needed import needed

from kerasdet.data.scenes import write_shapes
from kerasdet.distribution import place_in

HERE = Path(__file__).parent
# So long a process may wait for the other one, and then train.
SECONDS = 900


def launch(folder, *arguments, **variables):
    paths = [str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **variables}
    return subprocess.Popen(
        [sys.executable, str(HERE / "distributed.py"), str(folder), *map(str, arguments)], env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )


def finished(processes):
    """What each of them printed; a failure if one fails, or waits for the others in vain."""
    try:
        said = [process.communicate(timeout=SECONDS) for process in processes]
    except subprocess.TimeoutExpired:
        pytest.fail(f"of {len(processes)} processes not all came together within {SECONDS} s")
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, said, strict=True):
        assert process.returncode == 0, errors[-4000:]
    return [json.loads(output.splitlines()[-1]) for output, _ in said]


def free_addresses(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return addresses


@pytest.fixture(scope="module", params=["tensorflow", pytest.param("jax", marks=pytest.mark.slow)])
def trained(request, tmp_path_factory):
    """What came of one device and of two, and the folder with the set."""
    if request.param == "jax":
        needed("jax")
    folder = tmp_path_factory.mktemp(request.param)
    write_shapes(folder, 16, size=(64, 64), seed=3)
    results, = finished([launch(folder, KERAS_BACKEND=request.param, JAX_PLATFORMS="cpu")])
    return results, folder


def assert_same(one, other):
    assert one["objects"] and len(one["steps"]) == len(other["steps"]) == 3
    for mine, theirs in zip(one["steps"], other["steps"], strict=True):
        assert theirs == pytest.approx(mine, rel=1e-4)
    if "epoch" in one:
        # What callbacks see and leave: validation losses, figures and weights of the average.
        assert other["epoch"] == pytest.approx(one["epoch"], rel=1e-3, nan_ok=True)
        assert other["weights"] == pytest.approx(one["weights"], rel=1e-3, abs=1e-3)


def test_two_devices_learn_what_one_does(trained):
    results, _ = trained
    for name, one in results["one"].items():
        assert (one["replicas"], results["two"][name]["replicas"]) == (1, 2)
        assert one["rate"] == results["two"][name]["rate"] == pytest.approx(3e-4)
        assert_same(one, results["two"][name])
        # One device had more than twice as many objects as the other: its own number would not do.
        first = one["objects"][0]
        assert 2 * sum(first[:4]) < sum(first[4:]) and 2 * sum(first[::2]) < sum(first[1::2])


@pytest.mark.parametrize("trained", ["tensorflow"], indirect=True)
def test_two_processes_learn_what_one_does(trained):
    results, folder = trained
    addresses = free_addresses(2)
    processes = finished(
        [launch(folder, number, *addresses, KERAS_BACKEND="tensorflow") for number in (0, 1)]
    )
    (name, one), *_ = results["one"].items()
    both = [process["processes"][name] for process in processes]
    for each in both:
        assert each["replicas"] == 2
        assert_same(one, each)
    assert both[0]["epoch"] == pytest.approx(both[1]["epoch"], rel=1e-6, nan_ok=True)
    # Each makes its half of every batch.
    for batch, first, second in zip(one["objects"], *(each["objects"] for each in both), strict=True):
        assert (first, second) == (batch[::2], batch[1::2])
    assert [(folder / f"processes_{process}.npz").exists() for process in (0, 1)] == [True, False]


@pytest.mark.parametrize(("kind", "index", "process"), [("chief", 0, 0), ("worker", 0, 1), ("worker", 1, 2)])
def test_the_chief_comes_before_the_workers(kind, index, process):
    jobs = {"chief": ["a:1"], "worker": ["b:1", "c:1"], "evaluator": ["d:1"]}
    assert place_in(cluster(kind, index, jobs)) == (process, 3)


@pytest.mark.parametrize("jobs", [{}, {"worker": ["a:1"]}])
def test_one_process_is_alone(jobs):
    assert place_in(cluster(None, None, jobs)) == (0, 1)


def cluster(kind, index, jobs):
    return SimpleNamespace(
        task_type=kind, task_id=index, cluster_spec=lambda: SimpleNamespace(as_dict=lambda: jobs)
    )
