"""The official client of the v2 protocol, sync and asyncio, unmodified."""
import asyncio
import json

import numpy as np
import pytest
import tritonclient.http as sync
import tritonclient.http.aio as aio
from tritonclient.utils import InferenceServerException

import models
from daemon import sim_file

X = np.array([[1.5, -2.25, 3e-7, 65504.0]], dtype=np.float32)
B = np.array([[1, -(2**62) - 1, 2**53 + 1]], dtype=np.int64)


@pytest.fixture(scope="module")
def daemon(make_shared):
    d = make_shared(sim=sim_file({"echo": {"us": 200, "answer": "echo"}, "two": 200}))
    d.put("echo", models.identity())
    d.put("two", models.two())
    d.put("spare", models.identity(seed=2))
    return d


@pytest.fixture
def client(daemon):
    with sync.InferenceServerClient(f"127.0.0.1:{daemon.port}", concurrency=4) as c:
        yield c


def input_of(x, name="x", binary=True, lib=sync):
    i = lib.InferInput(name, list(x.shape), {"float32": "FP32", "int64": "INT64"}[x.dtype.name])
    i.set_data_from_numpy(x, binary_data=binary)
    return i


def both():
    return [input_of(X, "a"), input_of(B, "b")]


def expected(name):
    if name == "y":
        return models.sim_answer([X, B], 0)
    return models.sim_answer([X, B], 1, np.int64, (3,))


def test_the_client_sees_the_server_alive_and_ready(client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("echo") and client.is_model_ready("echo", "1")
    assert not client.is_model_ready("nobody") and not client.is_model_ready("echo", "2")


def test_server_metadata_lists_only_extensions_that_are_there(client):
    m = client.get_server_metadata()
    assert m["name"] == "gpuletd" and m["version"]
    assert {"binary_tensor_data", "statistics", "model_repository", "parameters"} <= set(m["extensions"])
    missing = {"classification", "sequence", "system_shared_memory", "cuda_shared_memory", "trace", "logging"}
    assert not missing & set(m["extensions"])


def test_model_metadata_includes_the_batch_dimension_and_the_configuration_does_not(client):
    m = client.get_model_metadata("two")
    assert (m["name"], m["versions"], m["platform"]) == ("two", ["1"], "onnx_onnxv1")
    assert m["inputs"] == [
        {"name": "a", "datatype": "FP32", "shape": [-1, 4]},
        {"name": "b", "datatype": "INT64", "shape": [-1, -1]},
    ]
    assert [o["name"] for o in m["outputs"]] == ["y", "z"]
    c = client.get_model_config("two", "1")
    assert c["max_batch_size"] == 8 and "dynamic_batching" in c
    assert c["input"] == [
        {"name": "a", "data_type": "TYPE_FP32", "dims": [4]},
        {"name": "b", "data_type": "TYPE_INT64", "dims": [-1]},
    ]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_the_client_infers_with_each_form_of_tensor(client, binary_in, binary_out):
    inputs = [input_of(X, "a", binary_in), input_of(B, "b", binary_in)]
    outputs = [sync.InferRequestedOutput(n, binary_data=binary_out) for n in ("z", "y")]
    r = client.infer("two", inputs, outputs=outputs, request_id="seven")
    assert [o["name"] for o in r.get_response()["outputs"]] == ["z", "y"]
    assert r.get_response()["id"] == "seven" and r.get_response()["model_version"] == "1"
    for name in ("y", "z"):
        np.testing.assert_array_equal(r.as_numpy(name), expected(name))


def test_the_client_gets_all_outputs_binary_when_it_asks_for_none(client):
    r = client.infer("two", both(), model_version="1")
    assert "binary_data_size" in r.get_output("y")["parameters"]
    np.testing.assert_array_equal(r.as_numpy("y"), expected("y"))
    np.testing.assert_array_equal(r.as_numpy("z"), expected("z"))


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_the_client_compresses_requests_and_asks_for_compressed_replies(client, algorithm, binary):
    for x in (X, np.tile(X, (8, 1))):
        outputs = [sync.InferRequestedOutput("y", binary_data=binary)]
        r = client.infer(
            "echo", [input_of(x, binary=binary)], outputs=outputs,
            request_compression_algorithm=algorithm, response_compression_algorithm=algorithm,
        )  # fmt: skip
        np.testing.assert_array_equal(r.as_numpy("y"), x)


def test_eight_requests_at_once_from_the_client_get_their_own_answers(client):
    x = np.arange(32, dtype=np.float32).reshape(8, 1, 4)
    asked = [client.async_infer("echo", [input_of(v)]) for v in x]
    for v, a in zip(x, asked):
        np.testing.assert_array_equal(a.get_result().as_numpy("y"), v)


def test_the_client_makes_and_reads_bodies_for_others_to_send(daemon):
    body, length = sync.InferenceServerClient.generate_request_body([input_of(X)])
    r = daemon.post("/v2/models/echo/infer", body, headers={"Inference-Header-Content-Length": str(length)})
    size = int(r.headers["Inference-Header-Content-Length"])
    result = sync.InferenceServerClient.parse_response_body(r.body, header_length=size)
    np.testing.assert_array_equal(result.as_numpy("y"), X)


def test_parameters_that_the_client_sends_are_accepted(client):
    r = client.infer("echo", [input_of(X)], priority=1, timeout=20_000_000, parameters={"note": "mine"})
    np.testing.assert_array_equal(r.as_numpy("y"), X)


def test_the_client_is_told_what_was_wrong(client):
    with pytest.raises(InferenceServerException) as e:
        client.infer("echo", [input_of(np.zeros((1, 5), np.float32))])
    assert e.value.status() == "400" and "'x'" in e.value.message() and "[1,5]" in e.value.message().replace(" ", "")
    with pytest.raises(InferenceServerException) as e:
        client.infer("nobody", [input_of(X)])
    assert e.value.status() == "404" and "nobody" in e.value.message()


def test_the_client_unloads_and_loads_a_model_and_reads_the_index(client):
    def entry():
        return next(m for m in client.get_model_repository_index() if m["name"] == "spare")

    assert entry()["state"] == "READY" and entry()["version"] == "1"
    client.unload_model("spare")
    assert not client.is_model_ready("spare")
    assert entry()["state"] == "UNAVAILABLE" and entry()["reason"] == "unloaded"
    with pytest.raises(InferenceServerException) as e:
        client.infer("spare", [input_of(X)])
    assert e.value.status() in ("404", "503")
    client.load_model("spare")
    assert client.is_model_ready("spare") and entry()["state"] == "READY"
    assert client.infer("spare", [input_of(X)]).as_numpy("y").shape == (1, 4)
    client.load_model("spare")  # loading what is loaded reloads it
    assert client.is_model_ready("spare")
    with pytest.raises(InferenceServerException):
        client.load_model("nobody")


def test_statistics_count_requests_rows_and_runs(client):
    def stats():
        (s,) = client.get_inference_statistics("echo")["model_stats"]
        return s

    before = stats()
    client.infer("echo", [input_of(np.zeros((8, 4), np.float32))])
    client.infer("echo", [input_of(X)])
    after = stats()
    assert (after["name"], after["version"]) == ("echo", "1")
    assert after["inference_count"] - before["inference_count"] == 9
    assert after["execution_count"] - before["execution_count"] == 2
    then, now = before["inference_stats"], after["inference_stats"]
    assert now["success"]["count"] - then["success"]["count"] == 2
    assert now["queue"]["count"] == now["success"]["count"] and now["fail"] == then["fail"]
    assert now["success"]["ns"] - then["success"]["ns"] >= now["compute_infer"]["ns"] - then["compute_infer"]["ns"] > 0
    assert after["last_inference"] > 1_600_000_000_000
    eights = [b for b in after["batch_stats"] if b["batch_size"] == 8]
    assert len(eights) == 1 and eights[0]["compute_infer"]["count"] >= 1
    names = {s["name"] for s in client.get_inference_statistics()["model_stats"]}
    assert {"echo", "two"} <= names


def test_the_asyncio_client_works_unmodified(daemon):
    async def talk():
        async with aio.InferenceServerClient(f"127.0.0.1:{daemon.port}") as c:
            assert await c.is_server_live() and await c.is_server_ready() and await c.is_model_ready("echo")
            assert (await c.get_server_metadata())["name"] == "gpuletd"
            assert (await c.get_model_metadata("echo"))["inputs"][0]["shape"] == [-1, 4]
            assert (await c.get_model_config("echo"))["max_batch_size"] == 8
            assert {m["name"] for m in await c.get_model_repository_index()} >= {"echo", "two"}
            await c.unload_model("spare")
            assert not await c.is_model_ready("spare")
            await c.load_model("spare")
            assert await c.is_model_ready("spare")
            for algorithm in (None, "gzip", "deflate"):
                for binary in (True, False):
                    r = await c.infer(
                        "echo", [input_of(X, binary=binary, lib=aio)],
                        outputs=[aio.InferRequestedOutput("y", binary_data=binary)],
                        request_compression_algorithm=algorithm, response_compression_algorithm=algorithm,
                    )  # fmt: skip
                    np.testing.assert_array_equal(r.as_numpy("y"), X)
            x = np.arange(64, dtype=np.float32).reshape(16, 1, 4)
            replies = await asyncio.gather(*(c.infer("echo", [input_of(v, lib=aio)]) for v in x))
            for v, r in zip(x, replies):
                np.testing.assert_array_equal(r.as_numpy("y"), v)
            stats = (await c.get_inference_statistics("echo"))["model_stats"][0]
            assert stats["inference_stats"]["success"]["count"] >= 22
            with pytest.raises(InferenceServerException) as e:
                await c.infer("nobody", [input_of(X, lib=aio)])
            assert "nobody" in json.dumps(e.value.message())

    asyncio.run(talk())
