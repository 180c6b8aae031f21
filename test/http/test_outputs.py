"""Outputs on the cpu backend against ONNX Runtime's.

FULL=1 adds the large models that are left out otherwise."""
import os
import threading

import numpy as np
import pytest

import models
from daemon import sim_file

FULL = os.environ.get("FULL") == "1"
DIGITS = ["digits", "digits-batch", "digits-tiny"]
SMALL = ["identity", "reduce0", "freedim", "external"]
LARGE = [("resnet50", 17), ("bert-base", 17)]
MORE = [("mobilenet_v2", 17), ("vgg19", 17), ("alexnet", 17), ("bert-base", 12), ("bert-base", 14), ("resnet50", 11)]


@pytest.fixture(scope="module")
def daemon(make_shared):
    return make_shared(backend="cpu", config={("http", "body-bytes"): "256M", ("limits", "timeout-ms"): 120000})


def batches(session):
    first = [x.shape[0] for x in session.get_inputs()]
    return [first[0]] if isinstance(first[0], int) else [1, 8]


def check(daemon, name, path):
    """Each batch, and eight single requests at once: each gets its own rows."""
    session = models.reference.open_session(path)
    for batch in batches(session):
        inputs = models.reference.make_inputs(session, batch)
        theirs = models.reference.run(session, inputs)
        models.reference.compare(daemon.infer_binary(name, inputs), theirs)
    return session


def at_once(daemon, name, requests):
    """The answers to requests that are made at the same time."""
    answers = [None] * len(requests)

    def ask(i):
        try:
            answers[i] = daemon.infer_binary(name, requests[i])
        except Exception as e:  # noqa: BLE001
            answers[i] = e

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(requests))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for a in answers:
        if isinstance(a, Exception):
            raise a
    return answers


def rows_of(inputs):
    n = len(next(iter(inputs.values())))
    return [{k: v[i : i + 1] for k, v in inputs.items()} for i in range(n)]


def check_rows_at_once(daemon, name, session):
    inputs = models.reference.make_inputs(session, 8)
    theirs = rows_of(models.reference.run(session, inputs))
    for ours, ref in zip(at_once(daemon, name, rows_of(inputs)), theirs):
        models.reference.compare(ours, ref)


@pytest.mark.parametrize("name", DIGITS)
def test_a_digits_model_answers_as_onnx_runtime_does(daemon, name):
    path = models.DATA / f"{name}.onnx"
    daemon.put(name, path.read_bytes())
    session = check(daemon, name, path)
    if batches(session) == [1, 8]:
        check_rows_at_once(daemon, name, session)


def test_digits_are_read_right(daemon):
    """The committed images with their labels: at least 95 of 100 right."""
    lines = [list(map(int, l.split())) for l in (models.DATA / "digits.txt").read_text().splitlines() if l and l[0] != "#"]
    daemon.put("digits-batch", (models.DATA / "digits-batch.onnx").read_bytes())
    right = 0
    for i in range(0, len(lines), 8):
        part = lines[i : i + 8]
        x = np.array([l[1:65] for l in part], np.float32).reshape(-1, 1, 8, 8)
        (y,) = daemon.infer_binary("digits-batch", {"image": x}).values()
        right += sum(int(np.argmax(row)) == l[0] for row, l in zip(y, part))
    assert len(lines) >= 100 and right >= 0.95 * len(lines)


@pytest.mark.parametrize("opset", [9, 13, 17])
@pytest.mark.parametrize("name", SMALL)
def test_a_small_model_answers_as_onnx_runtime_does(daemon, name, opset, tmp_path):
    models.export.export_small(models.export.MODELS[name][1], tmp_path / f"{name}.onnx", "dynamic", opset, "torchscript")
    path = tmp_path / f"{name}.onnx"
    if name == "external":
        weights = path.with_suffix(".weights").read_bytes()
        assert daemon.admin("PUT", f"/v1/models/{name}/files/{name}.weights", weights).status == 200
    daemon.put(name, path.read_bytes())
    session = check(daemon, name, path)
    if name != "reduce0":  # its rows have no answer of their own
        check_rows_at_once(daemon, name, session)


def test_free_dimensions_of_many_lengths_at_once_do_not_mix(daemon, tmp_path):
    path = tmp_path / "freedim.onnx"
    path.write_bytes(models.small("freedim"))
    daemon.put("freedim", path.read_bytes())
    session = models.reference.open_session(path)
    rng = np.random.default_rng(5)
    requests = [{"x": rng.standard_normal((1 + i % 3, 1 + i % 5, 4)).astype(np.float32)} for i in range(24)]
    for ours, r in zip(at_once(daemon, "freedim", requests), requests):
        models.reference.compare(ours, models.reference.run(session, r))


def test_more_shapes_than_are_kept_are_served_all_the_same(daemon, tmp_path):
    path = tmp_path / "freedim.onnx"
    path.write_bytes(models.small("freedim"))
    daemon.put("freedim", path.read_bytes())
    session = models.reference.open_session(path)
    for n in [*range(1, 45), 1, 2, 3]:
        x = {"x": np.random.default_rng(n).standard_normal((1, n, 4)).astype(np.float32)}
        models.reference.compare(daemon.infer_binary("freedim", x), models.reference.run(session, x))


def test_a_model_that_reduces_over_rows_answers_eight_clients_as_when_alone(daemon, tmp_path):
    path = tmp_path / "reduce0.onnx"
    path.write_bytes(models.small("reduce0"))
    daemon.put("reduce0", path.read_bytes())
    session = models.reference.open_session(path)
    rng = np.random.default_rng(6)
    for _ in range(10):
        requests = [{"x": rng.standard_normal((1 + i % 4, 4)).astype(np.float32)} for i in range(8)]
        alone = [daemon.infer_binary("reduce0", r) for r in requests]
        for ours, one, r in zip(at_once(daemon, "reduce0", requests), alone, requests):
            np.testing.assert_array_equal(ours["y"], one["y"])
            models.reference.compare(ours, models.reference.run(session, r))


def test_a_fixed_batch_is_served_as_it_is_and_no_other(daemon, tmp_path):
    for batch in (1, 3):
        path = tmp_path / f"fixed{batch}.onnx"
        path.write_bytes(models.small("identity", batch))
        name = f"fixed{batch}"
        m = daemon.put(name, path.read_bytes())
        assert m["max_batch"] == 1 and m["inputs"][0]["shape"] == [batch, 1] and m["batches"] is False and m["why_single"]
        check(daemon, name, path)
        error = daemon.infer(name, {"x": np.zeros((batch + 1, 1), np.float32)}, status=400)
        assert f"[{batch + 1},1]" in error.replace(" ", "") and f"[{batch},1]" in error.replace(" ", "")


def test_rows_in_a_batch_get_the_answers_they_get_alone(daemon):
    daemon.put("digits-batch", (models.DATA / "digits-batch.onnx").read_bytes())
    session = models.reference.open_session(models.DATA / "digits-batch.onnx")
    inputs = models.reference.make_inputs(session, 8)
    (together,) = daemon.infer_binary("digits-batch", inputs).values()
    for i, row in enumerate(rows_of(inputs)):
        (alone,) = daemon.infer_binary("digits-batch", row).values()
        np.testing.assert_allclose(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name, opset", LARGE + (MORE if FULL else []))
def test_a_large_model_answers_as_onnx_runtime_does(daemon, name, opset):
    path = models.exported(name, opset=opset)
    daemon.put(name, path.read_bytes())
    try:
        session = check(daemon, name, path)
        check_rows_at_once(daemon, name, session)
    finally:
        assert daemon.admin("DELETE", f"/v1/models/{name}").status == 200


@pytest.mark.parametrize("us", [100, 20000])
def test_eight_clients_of_sim_get_the_checksums_of_their_own_rows(make, us):
    d = make(sim=sim_file({"two": {"us": us}}))
    d.put("two", models.two())
    rng = np.random.default_rng(us)
    for _ in range(10 if us == 100 else 3):
        requests = [
            {"a": rng.standard_normal((1 + i % 3, 4)).astype(np.float32), "b": rng.integers(-9, 9, (1 + i % 3, 2))}
            for i in range(8)
        ]
        for y, r in zip(at_once(d, "two", requests), requests):
            both = [r["a"], r["b"]]
            np.testing.assert_array_equal(y["y"], models.sim_answer(both))
            np.testing.assert_array_equal(y["z"], models.sim_answer(both, 1, np.int64, (2,)))
