"""A model that takes bytes and has its preprocessing in it (test/models/photo.py), over HTTP."""
import json
import sys

import numpy as np
import pytest

import models
from test_cuda import FOLDER, gpu  # noqa: F401: a fixture

sys.path.insert(0, str(models.MODELS))
import photo  # noqa: E402

needs_plugin = pytest.mark.skipif(not (FOLDER / "gpulet-cuda.so").exists(), reason="no CUDA toolkit")
PHOTOS = np.random.default_rng(5).integers(0, 256, (8, photo.HEIGHT, photo.WIDTH, 3), np.uint8)


def right(tmp_path):
    path = tmp_path / "photo.onnx"
    path.write_bytes(photo.photo())
    return models.reference.run(models.reference.open_session(path), {"photo": PHOTOS})


def answers(d, tmp_path, query="", tolerance=1e-4):
    """Photos as bytes, one and eight, are what the network without preprocessing says of floats."""
    want = right(tmp_path)
    d.put("photo", photo.photo(), query)
    d.put("floats", photo.photo(raw=False), query)
    [x] = json.loads(d.get("/v2/models/photo").body)["inputs"]
    assert x["datatype"] == "UINT8" and x["shape"] == [-1, photo.HEIGHT, photo.WIDTH, 3]
    for n in (1, 8):
        got = d.infer_binary("photo", {"photo": PHOTOS[:n]})
        models.reference.compare(got, {"y": want["y"][:n]}, tolerance)
        floats = d.infer_binary("floats", {"x": np.ascontiguousarray(photo.pixels(PHOTOS[:n]))})
        models.reference.compare(got, floats, tolerance)


def test_bytes_are_answered_as_their_floats_are_on_cores(make, tmp_path):
    d = make(backend="cpu")
    answers(d, tmp_path)
    text = d.infer("photo", {"photo": PHOTOS[:1]})
    np.testing.assert_array_equal(text["y"], d.infer_binary("photo", {"photo": PHOTOS[:1]})["y"])


@needs_plugin
def test_bytes_are_answered_as_their_floats_are_on_a_gpu(gpu, tmp_path):  # noqa: F811
    answers(gpu("gpus=1"), tmp_path)


@needs_plugin
@pytest.mark.parametrize("precision, tolerance", [("fp16", 1e-2), ("bf16", 1e-2)])
def test_bytes_are_answered_as_their_floats_are_in_16_bits(gpu, tmp_path, precision, tolerance):  # noqa: F811
    d = gpu("gpus=1")
    if "built without" in d.admin_get("/v1/devices")["devices"][0]["why"]:
        pytest.skip("no headers of the libraries")
    answers(d, tmp_path, f"?precision={precision}", tolerance)


def test_bytes_are_not_taken_for_floats(make):
    """As many numbers, of another type: nothing is converted in silence."""
    d = make(backend="cpu")
    d.put("photo", photo.photo())
    assert "UINT8" in d.infer_binary("photo", {"photo": PHOTOS[:1].astype(np.float32)}, status=400)
