"""The bits of a row on the cpu backend: the same each time, and with batch_invariant whatever shares its batch."""
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import models

ROWS = 8
SMALL_BERT = dict(words=30522, positions=64, hidden=128, heads=4, inner=512, layers=3, seq=48)
NETWORKS = ["resnet18", "mobilenet_v2", "bert", "digits-batch"]
MORE = ["mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_0", "densenet121", "efficientnet_b0", "vit_b_32"]
FULL = os.environ.get("FULL") == "1"


@pytest.fixture(scope="module")
def daemon(make_shared):
    return make_shared(backend="cpu", config={("limits", "timeout-ms"): 120000})


def run(code, *args):
    one = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(models.MODELS)}  # other tests run beside this one
    subprocess.run([sys.executable, "-c", code, *map(str, args)], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, env=one)


@pytest.fixture(scope="module")
def file_of(tmp_path_factory):
    """Exports a network once."""
    folder, made = tmp_path_factory.mktemp("networks"), {}

    def get(name):
        path = folder / f"{name}.onnx"
        if name.startswith("digits"):
            return models.DATA / f"{name}.onnx"
        if name == "bert" and name not in made:
            run("import export, pathlib, sys; export.BERT.update(eval(sys.argv[2]));"
                "export.export_torch(export.bert, pathlib.Path(sys.argv[1]), 'dynamic', 17, 'torchscript')",
                path, SMALL_BERT)
        elif name not in made:
            run("import pathlib, sys, zoo; zoo.write(sys.argv[2], pathlib.Path(sys.argv[1]))", path, name)
        made[name] = path
        return path

    return get


def part(inputs, at, n):
    """n rows from row `at`, going round."""
    rows = [(at + i) % ROWS for i in range(n)]
    return {k: np.ascontiguousarray(v[rows]) for k, v in inputs.items()}


def assert_same_bits(ours, theirs, what):
    assert set(ours) == set(theirs)
    for name, y in theirs.items():
        assert ours[name].tobytes() == y.tobytes(), f"{what}: {name} differs in {np.sum(ours[name] != y)} of {y.size}"


def at_once(asks):
    threads = [threading.Thread(target=ask) for ask in asks]
    for t in threads:
        t.start()
    for t in threads:
        t.join()


def most_rows_of_a_run(daemon, name):
    stats = daemon.get(f"/v2/models/{name}/stats").body
    return max(b["batch_size"] for b in json.loads(stats)["model_stats"][0]["batch_stats"])


def check_clients(daemon, name, inputs, alone):
    """Clients with one to three rows each at once, until runs were shared by several of them."""
    wrong = []

    def client(k):
        n = 1 + k % 3
        try:
            assert_same_bits(daemon.infer_binary(name, part(inputs, k, n)), part(alone, k, n), f"client {k}")
        except Exception as e:  # noqa: BLE001
            wrong.append(e)

    for turn in range(50):
        at_once([lambda k=k + turn: client(k) for k in range(8)])
        assert not wrong, wrong[0]
        if most_rows_of_a_run(daemon, name) > 3:
            return
    raise AssertionError("no run was shared")


@pytest.mark.parametrize("name", NETWORKS + (MORE if FULL else []))
def test_with_batch_invariant_a_row_has_the_bits_that_it_has_alone(daemon, file_of, name):
    path = file_of(name)
    assert daemon.put(name, path.read_bytes(), "?batch_invariant=1&max_batch=8")["batch_invariant"] is True
    try:
        inputs = models.reference.make_inputs(models.reference.open_session(path), ROWS)
        rows = [daemon.infer_binary(name, part(inputs, i, 1)) for i in range(ROWS)]
        alone = {k: np.concatenate([r[k] for r in rows]) for k in rows[0]}
        check_clients(daemon, name, inputs, alone)  # first: of statistics it needs its own
        for n in range(1, ROWS + 1):
            for at in (0, 3):
                together = daemon.infer_binary(name, part(inputs, at, n))
                assert_same_bits(together, part(alone, at, n), f"batch {n} from row {at}")
    finally:
        assert daemon.admin("DELETE", f"/v1/models/{name}").status == 200


@pytest.mark.parametrize("name", NETWORKS)
def test_runs_of_one_size_have_the_same_bits_each_time_and_a_row_wherever_it_is(daemon, make, file_of, name):
    """max_batch is the size of the runs: fewer rows could be run in another size that is compiled."""
    path = file_of(name)
    inputs = models.reference.make_inputs(models.reference.open_session(path), ROWS)
    other = make(backend="cpu", config={("limits", "timeout-ms"): 120000})
    for n in (1, 3, ROWS):
        for d in (daemon, other):
            assert d.put(name, path.read_bytes(), f"?max_batch={n}")["batch_invariant"] is False
        first = daemon.infer_binary(name, part(inputs, 0, n))
        assert_same_bits(daemon.infer_binary(name, part(inputs, 0, n)), first, f"batch {n} once more")
        assert_same_bits(other.infer_binary(name, part(inputs, 0, n)), first, f"batch {n} of another process")
        if n > 1:  # its second row, now the first beside others
            again = daemon.infer_binary(name, part(inputs, 1, n))
            assert_same_bits({k: y[:1] for k, y in again.items()}, {k: y[1:2] for k, y in first.items()}, "a row")
    assert daemon.admin("DELETE", f"/v1/models/{name}").status == 200


def test_batch_invariant_is_a_number_of_the_model_and_is_kept(make):
    d = make(backend="cpu")
    data = (models.DATA / "digits-batch.onnx").read_bytes()
    d.put("digits", data)
    inputs = models.reference.make_inputs(models.reference.open_session(models.DATA / "digits-batch.onnx"), ROWS)
    before = d.infer_binary("digits", inputs)
    r = d.admin("PATCH", "/v1/models/digits", {"batch_invariant": 1})
    assert r.status == 200 and d.admin_get("/v1/models/digits")["batch_invariant"] is True
    models.reference.compare(d.infer_binary("digits", inputs), before)
    assert d.admin_get("/v1/models/digits")["success"] == 2  # the version counts on
    d.stop()
    d.start()
    assert d.admin_get("/v1/models/digits")["batch_invariant"] is True
    assert d.put("digits", data, "?batch_invariant=0")["batch_invariant"] is False
    assert_same_bits(d.infer_binary("digits", inputs), before, "as before")
    error = d.put("digits", data, "?batch_invariant=2", status=400)
    assert "batch_invariant" in error and "'2'" in error
