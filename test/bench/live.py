"""What the experiments on a running daemon share: a daemon of one's own, a declared device of 132
units, gpuletctl bench as the load, and tables."""
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "test" / "http"))
from daemon import BUILD, Daemon  # noqa: E402

GPULETCTL = (BUILD if BUILD.is_absolute() else ROOT / BUILD) / "gpuletctl"
AWAKE_US = 200  # before a request is due, on cores: a virtual machine's timers are late by as much
VOID = 3  # status of a run in which the generator itself was late


@contextlib.contextmanager
def daemon(**args):
    with tempfile.TemporaryDirectory(prefix="gpuletd-live-") as folder:
        d = Daemon(folder, **args).start()
        try:
            yield d
        finally:
            d.stop()


def pinned(core):
    """How the generator runs: on a core of its own choice or on this one, and before all others where
    that is allowed, as a clock does: it needs little, and when it is late the run is void."""
    first = ["chrt", "--fifo", "1"] if os.geteuid() == 0 else []
    return first + (["taskset", "-c", str(core)] if core is not None else [])


def bench(d, rates, *args, core=None):
    """The report of one run; rates: {model: (rps, slo_ms)}.  "void" says that it does not count."""
    models = [f"{n}={rps:.6g}@{slo_ms:.6g}" for n, (rps, slo_ms) in rates.items()]
    if d.backend == "cpu":
        args = [*args, "--awake", AWAKE_US]
    command = [*pinned(core), GPULETCTL, "bench", "--to", f"http://127.0.0.1:{d.port}", "--json", *map(str, args), *models]
    r = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    if r.returncode not in (0, VOID):
        raise SystemExit(f"{' '.join(map(str, command))}: status {r.returncode}")
    return json.loads(r.stdout)


def apart():
    """Configuration of a daemon whose gpu-lets leave the last core to the generator."""
    last = os.cpu_count() - 1
    return {("device", "cpu-units"): f"0-{last - 1}" if last > 1 else "0"} if last else {}


def share(part, whole):
    return part / whole if whole else 1.0


def run_ms(batch, units, work_ms, knee):
    """A made-up surface: a fixed part, rows that cost less together, and units beyond what the
    rows can use; work_ms is that of one row on one unit."""
    return 0.4 + work_ms * batch**0.9 / min(units, knee * batch**0.5)


def device(models, units=132, granule_units=2, interference=None, echo=()):
    """A problem file for the sim backend; models: {name: (work_ms, knee)}."""
    batch, sizes = [1, 2, 4, 8, 16, 32], [2, 4, 8, 16, 32, 64, 132]
    kind = {"name": "declared", "granules": units // granule_units, "granule_units": granule_units}
    if interference:
        kind["interference"] = interference
    return {
        "version": 1,
        "types": [kind],
        "devices": [{"type": "declared", "names": ["sim0"]}],
        "models": [
            {"name": n, "max_batch": 32, "profile": {"declared": {
                "batch": batch, "units": sizes,
                "run_ms": [[round(run_ms(b, u, *m), 4) for b in batch] for u in sizes]}}}
            for n, m in models.items()],
        "sim": {"echo": list(echo)},
    }  # fmt: skip


def table(rows, head, to=sys.stdout):
    """Rows of strings and numbers under their heads, aligned."""
    text = [[str(x) for x in r] for r in [head, *rows]]
    widths = [max(len(r[i]) for r in text) for i in range(len(head))]
    for r in text:
        print("  ".join(x.rjust(w) if i else x.ljust(w) for i, (x, w) in enumerate(zip(r, widths))), file=to)
    to.flush()


def machine():
    model = next((x.split(":")[1].strip() for x in open("/proc/cpuinfo") if x.startswith("model name")), "?")
    return f"{model}, {os.cpu_count()} cores"
