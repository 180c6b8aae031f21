#!/usr/bin/env python3
"""make check-onnx: the tests that come with ONNX, three ways: the reference kernels and the CPU
backend in process (test/ops/test_onnx_node.c), and a daemon through HTTP.

    test/onnx/check.py [--write] [-k PART] [--way ref|cpu|http]...

The data sets are Debian's (libonnx-testdata) and the one of the onnx wheel in .venv-test.  What does
not pass in all ways stands in docs/operators-refused.md with its reason, which --write makes anew
and this job compares; anything else fails the job."""
import argparse
import collections
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "test" / "http"))
from daemon import BUILD, Daemon  # noqa: E402

DEBIAN = pathlib.Path("/usr/share/libonnx-testdata/data")
WHEEL = ROOT / BUILD / "onnx-wheel"
KINDS = ("node", "simple", "pytorch-operator", "pytorch-converted", "light")
DOC = ROOT / "docs" / "operators-refused.md"
IN_FLIGHT = 4  # models loaded at once
# Minutes on plain loops: only as a server runs them.
NOT_ON = {"ref": {"light"}}

# What differs and is right: ONNX prescribes no generator of random numbers; a unit of FP16 that two
# orders of rounding put on either side of the tolerance.
DIFFERS = {
    "test_bernoulli": "differs: random numbers, and ONNX prescribes no generator",
    "test_attention_4d_causal_fp16_expanded": "differs: by one unit of FP16, 1.04e-3 where 1e-3 is allowed",
}

Outcome = collections.namedtuple("Outcome", "how why")  # passed, refused, failed


def data_sets():
    """{"debian/node": folder, ...}"""
    found = {}
    for origin, top in (("debian", DEBIAN), ("wheel", WHEEL)):
        for kind in KINDS:
            if (top / kind).is_dir():
                found[f"{origin}/{kind}"] = top / kind
    return found


def make_wheel_data():
    return subprocess.run([sys.executable, ROOT / "test/onnx/data.py", WHEEL]).returncode == 0


# ---- the three ways: {test name: Outcome}


def in_process(backend, folder, part):
    command = [ROOT / BUILD / "test/ops/test_onnx_node", "-v", *(["-b", backend] if backend else [])]
    command += ["-k", part] if part else []
    out = subprocess.run([*command, folder], stdout=subprocess.PIPE, text=True, errors="replace").stdout
    found = {}
    for how, name, why in re.findall(r"^# (passed|refused|failed): (\S+?)(?:: (.*))?$", out, re.M):
        found[name] = Outcome(how, why)
    return found


def one_through_http(daemon, folder, number):
    from wire import Failed, OnnxTest, Refused

    try:
        OnnxTest(folder).run(daemon, f"t{number}")
        return Outcome("passed", "")
    except Refused as e:
        return Outcome("refused", str(e))
    except Failed as e:
        return Outcome("failed", str(e))
    except Exception as e:  # of the test's own data: a name that a reader of this can look up
        return Outcome("failed", f"{type(e).__name__}: {e}")


def through_http(folder, part):
    tests = [t for t in sorted(folder.iterdir()) if part in t.name]
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # its fsync costs nothing
    with tempfile.TemporaryDirectory(dir=where) as scratch:
        daemon = Daemon(scratch, backend="cpu", config={("limits", "host-bytes"): "1G"}).start()
        try:
            with concurrent.futures.ThreadPoolExecutor(IN_FLIGHT) as pool:
                jobs = {t.name: pool.submit(one_through_http, daemon, t, i) for i, t in enumerate(tests)}
                return {name: job.result() for name, job in jobs.items()}
        finally:
            daemon.stop()


def may_differ(name, outcome):
    """A known difference is no failure; a crash, a refusal or another test's difference is."""
    why = next((w for t, w in DIFFERS.items() if name == t or (t == "test_bernoulli" and name.startswith(t))), None)
    return Outcome("differs", why) if why and outcome.how == "failed" and "output 0" in outcome.why else outcome


def run_way(way, folder, part):
    found = through_http(folder, part) if way == "http" else in_process(None if way == "ref" else way, folder, part)
    return {name: may_differ(name, outcome) for name, outcome in found.items()}


# ---- what does not pass


def reason(why):
    """The message without what differs from way to way: which node, which model."""
    why = re.sub(r"^model '[^']*'(?: version \d+)?: ", "", why)
    why = re.sub(r"^node \d+ '[^']*' \((\w+)\): (?:node '[^']*' \(\1\): )?", r"\1: ", why)
    return re.sub(r"^node '[^']*' \((\w+)\): ", r"\1: ", why).replace("|", "\\|").strip()


def refused_text(results):
    """Markdown: for each data set, the tests that do not pass in some way."""
    lines = ["# ONNX tests that do not pass", "",
             "Made by `test/onnx/check.py --write` and checked by `make check-onnx`, which runs the tests that",
             "come with ONNX on the reference kernels, on the cpu backend and through HTTP. All tests that are not",
             "listed here pass in all three ways.", ""]  # fmt: skip
    for name, ways in results.items():
        tests = sorted({t for found in ways.values() for t in found})
        bad = [t for t in tests if any(w[t].how != "passed" for w in ways.values() if t in w)]
        lines += [f"## {name}: {len(tests) - len(bad)} of {len(tests)} pass", ""]
        if bad:
            lines += ["| test | reason |", "| --- | --- |"]
        for t in bad:
            why = next(w[t] for w in ways.values() if t in w and w[t].how != "passed")
            lines.append(f"| {t} | {reason(why.why)} |")
        lines += [""] if bad else []
    return "\n".join(lines)


def sections(text):
    """{data set: its section}: one that is not there to be run is not compared."""
    return {s.split(":")[0]: s.strip() for s in text.split("\n## ")[1:]}


def show(name, way, found):
    count = collections.Counter(o.how for o in found.values())
    print(f"{name} {way}: {count['passed']} passed, {count['refused']} refused, {count['differs']} differ on purpose, "
          f"{count['failed']} failed", flush=True)
    for t, o in sorted(found.items()):
        if o.how != "passed":
            print(f"#   {o.how} {t}: {o.why}")


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--write", action="store_true")
    args.add_argument("--way", action="append", choices=("ref", "cpu", "http"))
    args.add_argument("--set", default="")
    args.add_argument("-k", dest="part", default="")
    a = args.parse_args()
    if not make_wheel_data():
        print("# the onnx wheel's data cannot be made: it is left out")
    results = {}
    for name, folder in data_sets().items():
        if a.set not in name:
            continue
        ways = [w for w in a.way or ("ref", "cpu", "http") if name.split("/")[1] not in NOT_ON.get(w, ())]
        results[name] = {}
        for way in ways:
            results[name][way] = run_way(way, folder, a.part)
            show(name, way, results[name][way])
    if not results:
        print("ok - the ONNX tests are skipped: neither libonnx-testdata nor the onnx wheel is there")
        return 0
    text = refused_text(results)
    if a.write:
        DOC.write_text(text)
    complete = not (a.part or a.way or a.set)
    failed = [f"{n} {t}" for n, ways in results.items() for w in ways.values() for t, o in w.items() if o.how == "failed"]
    print(f"{'not ok' if failed else 'ok'} - no ONNX test gives a wrong answer")
    there, now = sections(DOC.read_text() if DOC.exists() else ""), sections(text)
    current = not complete or all(there.get(n) == s for n, s in now.items())
    print(f"{'ok' if current else 'not ok'} - docs/operators-refused.md is current")
    return 1 if failed or not current else 0


if __name__ == "__main__":
    sys.exit(main())
