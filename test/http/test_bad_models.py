"""Models and disks that are not as they should be."""
import json
import os
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import pytest

import models
from daemon import error_of, sim_file, until

X = np.array([[1, 2, 3, 4]], dtype=np.float32)


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    subprocess.run([sys.executable, models.MODELS / "bad.py", folder], check=True)
    return folder


@pytest.fixture(scope="module")
def daemon(make_shared):
    d = make_shared(sim=sim_file({"served": {"us": 200, "answer": "echo"}}))
    d.put("served", models.identity())
    return d


def index():
    """The names are needed before any fixture runs."""
    folder = tempfile.mkdtemp()
    subprocess.run([sys.executable, models.MODELS / "bad.py", folder], check=True)
    with open(os.path.join(folder, "index.json"), encoding="ascii") as f:
        found = json.load(f)
    shutil.rmtree(folder)
    return {b["name"]: b for b in found}


INDEX = index()


def neighbours(daemon, bad, case):
    """Put what lies beside the model; what no client could put is left out."""
    for at in sorted((bad / case["file"]).parent.iterdir()) if "/" in case["file"] else ():
        if at.name != "model.onnx" and at.is_file() and not at.is_symlink():
            r = daemon.admin("PUT", f"/v1/models/neutral/files/{at.name}", at.read_bytes())
            assert r.status == 200, r.body


@pytest.mark.parametrize("name", INDEX)
def test_a_bad_model_is_refused_with_its_reason_and_leaves_nothing(daemon, bad, name):
    case = INDEX[name]
    before = daemon.files()
    neighbours(daemon, bad, case)
    data = (bad / case["file"]).read_bytes()
    r = daemon.admin("PUT", "/v1/models/neutral", data)
    assert 400 <= r.status < 500, (r.status, r.body)
    error = error_of(r)
    if data:
        assert "neutral" in error
    for words in case["mention"]:
        assert any(w.lower() in error.lower() for w in words), (words, error)
    assert daemon.files() == before
    assert daemon.admin("GET", "/v1/models/neutral").status == 404
    np.testing.assert_array_equal(daemon.infer("served", {"x": X})["y"], X)


def test_the_model_without_a_fault_is_accepted(daemon, bad):
    daemon.put("neutral", (bad / "good.onnx").read_bytes())
    assert daemon.infer("neutral", {"x": X})["y"].shape == (1, 4)
    assert daemon.admin("DELETE", "/v1/models/neutral").status == 200


def test_a_bad_new_version_leaves_the_old_one_serving(daemon, bad):
    daemon.put("neutral", models.identity())
    for case in ("not-onnx", "unknown-operator", "cycle", "truncated"):
        daemon.put("neutral", (bad / INDEX[case]["file"]).read_bytes(), status=400)
        m = daemon.admin_get("/v1/models/neutral")
        assert m["version"] == 1 and m["state"] == "READY"
        assert daemon.infer("neutral", {"x": X})["y"].shape == (1, 4)
    assert daemon.put("neutral", models.identity(seed=9))["version"] == 2
    assert daemon.admin("DELETE", "/v1/models/neutral").status == 200


# ---- a full disk


@pytest.fixture
def small_disk():
    """A file system of 6 MiB."""
    folder = tempfile.mkdtemp(prefix="gpuletd-disk-")
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", folder], capture_output=True, text=True)
    if mount.returncode:
        os.rmdir(folder)
        pytest.skip(f"no file system can be mounted here: {mount.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)
    os.rmdir(folder)


def test_a_full_disk_is_507_and_harms_nothing(make, small_disk):
    d = make(state=small_disk + "/state", sim=sim_file({"served": {"us": 200, "answer": "echo"}}))
    d.put("served", models.identity())
    before = d.files()
    # Known before the body is read.
    with d.wire(admin=True) as w:
        r = w.ask("PUT /v1/models/big HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000000\r\nExpect: 100-continue\r\n\r\n")
        assert r.status == 507 and "20000000" in error_of(r)
    # Known only when the disk is full: the length was not declared.
    data = models.padded(7 << 20)
    with d.wire(admin=True) as w:
        w.send("PUT /v1/models/big HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        w.send(b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data))
        r = w.read()
        assert r.status == 507, r.body
        error_of(r)
    until(lambda: d.files() == before, 10, "what was there of it to be removed")
    np.testing.assert_array_equal(d.infer("served", {"x": X})["y"], X)
    # Not even a new version of what is there.
    with open(f"{small_disk}/filler", "wb", buffering=0) as f:
        try:
            while True:
                f.write(bytes(4096))
        except OSError:
            pass
    r = d.admin("PUT", "/v1/models/served", models.identity(seed=2))
    assert r.status == 507, r.body
    error_of(r)
    r = d.admin("PATCH", "/v1/models/served", {"slo_ms": 50})
    assert r.status == 507, r.body
    error_of(r)
    os.unlink(f"{small_disk}/filler")
    assert d.files() == before
    np.testing.assert_array_equal(d.infer("served", {"x": X})["y"], X)
    m = d.admin_get("/v1/models/served")
    assert (m["version"], m["slo_ms"]) == (1, 0)
    d.put("small", models.padded(1 << 16))
    assert d.infer("small", {"x": X})["y"].shape == (1, 4)
