"""Daemons for the tests, and their results as lines that test/run.sh counts."""
import re
import shutil
import tempfile

import numpy as np
import pytest

from daemon import Daemon

np.seterr(over="ignore")  # the twin of sim's hash counts modulo 2**64


class Daemons:
    """Makes daemons and sees to their end."""

    def __init__(self):
        self.made = []

    def __call__(self, start=True, **args):
        folder = tempfile.mkdtemp(prefix="gpuletd-")
        d = Daemon(folder, **args)
        self.made.append(d)
        return d.start() if start else d

    def close(self):
        failures = []
        for d in self.made:
            try:
                d.stop()
            except AssertionError as e:
                failures.append(str(e))
            shutil.rmtree(d.folder, ignore_errors=True)
        assert not failures, "\n".join(failures)


def daemons():
    made = Daemons()
    yield made
    made.close()


make = pytest.fixture(daemons, name="make")  # for one test
make_shared = pytest.fixture(daemons, name="make_shared", scope="module")  # for all tests of a file


# ---- "ok - name", "not ok - name"


def sentence(nodeid):
    name = nodeid.rsplit("::", 1)[-1]
    name, bracket, rest = name.partition("[")
    return re.sub(r"^test_", "", name).replace("_", " ") + (f" ({rest[:-1]})" if bracket else "")


def pytest_runtest_logreport(report):
    name = sentence(report.nodeid)
    if report.skipped:
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        print(f"\nskipped - {name}: {why}", flush=True)
    elif report.failed:
        when = "" if report.when == "call" else f" ({report.when})"
        print(f"\nnot ok - {name}{when}", flush=True)
    elif report.when == "call":
        print(f"\nok - {name}", flush=True)
