"""How the daemon's threads share the cores with each other."""
import ctypes
import os
import pathlib
import platform
import re
import struct

import numpy as np
import pytest

import models
from daemon import sim_file, until

SCHED_GETATTR = 315  # on x86-64
ATTR = struct.Struct("IIQiIQQQ")


def threads(d, name):
    """{thread id: its scheduling} of the threads whose name begins so."""
    found = {}
    for t in pathlib.Path(f"/proc/{d.process.pid}/task").iterdir():
        if (t / "comm").read_text().startswith(name):
            attr = ctypes.create_string_buffer(ATTR.size)
            assert ctypes.CDLL(None).syscall(SCHED_GETATTR, int(t.name), attr, ATTR.size, 0) == 0
            _, policy, _, nice, _, slice_ns, _, _ = ATTR.unpack(attr.raw)
            found[int(t.name)] = {"policy": policy, "nice": nice, "slice_ns": slice_ns}
    return found


@pytest.fixture(name="d")
def served(make):
    d = make(sim=sim_file({"m": 100}))
    d.put("m", models.identity(), query="?max_batch=1")
    until(lambda: threads(d, "gpulet-"), 20, "an executor", d)
    return d


def test_the_builder_stands_back_behind_executors(d):
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    assert {t["nice"] for t in threads(d, "gpulet-").values()} == {mine}
    assert {t["nice"] for t in threads(d, "builder").values()} == {min(mine + 10, 19)}


@pytest.mark.skipif(platform.machine() != "x86_64" or tuple(map(int, re.findall(r"\d+", platform.release())[:2])) < (6, 12),
                    reason="Linux 6.12 or newer, x86-64: slices are asked for and told")  # fmt: skip
def test_executors_on_cores_ask_for_shorter_slices_than_others_have(make):
    d = make(backend="cpu")
    d.put("m", models.identity())
    d.infer_binary("m", {"x": np.ones((1, 4), np.float32)})  # it has entered its partition
    executors, others = threads(d, "gpulet-"), threads(d, "http-data")
    assert max(t["slice_ns"] for t in executors.values()) < min(t["slice_ns"] for t in others.values())
