"""What an operator sees: histograms, events with their reasons, gpuletctl top and explain."""
import json
import re
import subprocess
import threading
import time

import numpy as np
import pytest

import models
from daemon import BUILD, ENV, ROOT, SLOW, json_input, metric, sim_file, until

GPULETCTL = (BUILD if BUILD.is_absolute() else ROOT / BUILD) / "gpuletctl"
X = np.ones((1, 4), np.float32)


def infer(d, name, rows=1, **parameters):
    o = {"inputs": [json_input("x", np.ones((rows, 4), np.float32))], "parameters": parameters}
    return d.post(f"/v2/models/{name}/infer", o).status


def at_once(n, ask):
    statuses, lock = [], threading.Lock()

    def one():
        s = ask()
        with lock:
            statuses.append(s)

    threads = [threading.Thread(target=one) for _ in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return statuses


def gpuletctl(d, *args, status=0):
    done = subprocess.run([GPULETCTL, "--server", f"unix:{d.socket}", *args], capture_output=True, text=True, env=ENV,
                          timeout=60 * SLOW)
    assert done.returncode == status, (args, done.stdout[-500:], done.stderr)
    return done.stdout


# ---- Prometheus text, as its format's description has it

SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{([^}]*)\})? (-?[0-9.]+(?:e[+-]?[0-9]+)?|[+-]Inf|NaN)$')
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|$)')


def families(text):
    """{family: (type, {(suffix, labels): value})}; every rule of the format is asserted."""
    assert text.endswith("\n")
    found, family, helped = {}, None, set()
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split(" ")[2]
            assert name not in helped and name not in found, f"two of {name}, or apart"
            assert len(line.split(" ", 3)[3]) > 3, line
            helped.add(name)
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name in helped and name not in found and kind in ("counter", "gauge", "histogram"), line
            found[name], family = (kind, {}), name
        else:
            m = SAMPLE.match(line)
            assert m, line
            assert m[1].startswith(family), f"{line} stands in {family}"
            suffix = m[1][len(family):]
            assert suffix in (("_bucket", "_sum", "_count") if found[family][0] == "histogram" else ("",)), line
            labels = dict(LABEL.findall(m[2] or ""))
            assert "".join(f'{k}="{v}",' for k, v in labels.items()) == (m[2] + "," if m[2] else ""), line
            key = suffix, tuple(sorted(labels.items()))
            assert key not in found[family][1], f"twice: {line}"
            found[family][1][key] = float(m[3])
    for name, (kind, samples) in found.items():
        assert kind != "counter" or all(v >= 0 for v in samples.values()), name
        if kind == "histogram":
            histograms_check(name, samples)
    return found


def histograms_check(name, samples):
    series = {}
    for (suffix, labels), v in samples.items():
        rest = tuple(l for l in labels if l[0] != "le")
        if suffix == "_bucket":
            series.setdefault(rest, []).append((float(dict(labels)["le"].replace("+Inf", "inf")), v))
    assert series.keys() == {l for s, l in samples if s == "_sum"} == {l for s, l in samples if s == "_count"}
    for labels, buckets in series.items():
        assert buckets == sorted(buckets) and len({le for le, _ in buckets}) == len(buckets), (name, labels)
        assert all(a <= b for (_, a), (_, b) in zip(buckets, buckets[1:])), (name, buckets)
        assert buckets[-1] == (float("inf"), samples["_count", labels]), (name, labels)


def scrape(d):
    r = d.admin("GET", "/metrics")
    assert r.status == 200 and r.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return families(r.body.decode())


def value(found, family, suffix="", **labels):
    rows = [v for (s, l), v in found[family][1].items() if s == suffix and labels.items() <= dict(l).items()]
    assert rows, (family, suffix, labels)
    return sum(rows)


def test_all_metrics_follow_the_format(make):
    d = make(sim=sim_file({"m": 500, "other": 500}))
    scrape(d)
    for n in ("m", "other"):
        d.put(n, models.identity(), "?slo_ms=50")
        assert infer(d, n) == 200
    names = scrape(d)
    assert {"gpuletd_request_stage_seconds", "gpuletd_gpulet_run_ratio", "gpuletd_sim_lag_seconds"} <= set(names)


def test_histograms_count_every_request_in_every_stage(make):
    d = make(sim=sim_file({"m": 2000, "other": 500}))
    for n in ("m", "other"):
        d.put(n, models.identity(), "?max_batch=4")
    assert at_once(37, lambda: infer(d, "m")) == [200] * 37
    assert infer(d, "m", rows=3) == 200
    found = scrape(d)
    for stage in ("queue", "compute", "reply"):
        assert value(found, "gpuletd_request_stage_seconds", "_count", model="m", stage=stage) == 38
        assert value(found, "gpuletd_request_stage_seconds", "_count", model="other", stage=stage) == 0
    runs = value(found, "nv_inference_exec_count")
    assert value(found, "gpuletd_gpulet_run_ratio", "_count") == runs < 38
    # What a request waits and what it runs is all that it takes.
    us = sum(value(found, "gpuletd_request_stage_seconds", "_sum", model="m", stage=s) for s in ("queue", "compute")) * 1e6
    assert us == pytest.approx(value(found, "nv_inference_request_duration_us", model="m"), abs=2)
    busy = value(found, "gpuletd_gpulet_busy_seconds_total")
    assert busy == pytest.approx(value(found, "nv_inference_compute_infer_duration_us") / 1e6, abs=1e-4)
    # A run is at least 2 ms, and the prediction is of such a run.
    assert value(found, "gpuletd_request_stage_seconds", "_bucket", model="m", stage="compute", le="0.001") == 0
    assert value(found, "gpuletd_gpulet_run_ratio", "_bucket", le="0.9") == 0


def test_what_is_refused_or_dropped_is_counted_by_reason_and_told_once_a_second(make):
    d = make(sim=sim_file({"m": 40_000}))
    d.put("m", models.identity(), "?max_batch=1&queue=2")
    since = d.admin_get("/v1/events")["last"]
    statuses = at_once(12, lambda: infer(d, "m"))
    late = [infer(d, "m", timeout=1000) for _ in range(5)]
    assert set(statuses) == {200, 503} and late == [503] * 5
    n = statuses.count(503) + 5
    found = scrape(d)
    assert value(found, "gpuletd_requests_refused_total", model="m") == n
    assert value(found, "gpuletd_requests_refused_total", model="m", why="full") == statuses.count(503)
    assert value(found, "gpuletd_requests_in_time_total", model="m") == statuses.count(200)

    def told():
        events = [e for e in d.admin_get(f"/v1/events?since={since}")["events"] if e["event"] == "refuse"]
        assert all(e["model"] == "m" for e in events)
        return sum(int(k) for e in events for k in re.findall(r"(\d+) (?:refused|dropped)", e["message"])) == n and events

    events = until(told, 10, "the refusals as events", d)
    assert len(events) <= 4, events
    assert any("queue is full" in e["message"] for e in events)
    assert any("could not be in time" in e["message"] or "got late" in e["message"] for e in events)
    time.sleep(2.5)
    assert told()  # and not again


def test_top_shows_how_busy_gpu_lets_are_and_how_many_are_in_time(make):
    d = make(sim=sim_file({"m": 2000, "idle": 500}))
    for n in ("m", "idle"):
        d.put(n, models.identity(), "?max_batch=1&slo_ms=500")
    for _ in range(4):
        assert infer(d, "m") == 200
    assert infer(d, "m", timeout=100) == 503
    out = gpuletctl(d, "status")
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line}
    column = rows["MODEL"].index("IN")  # IN TIME is one column of two words
    assert "80.00%" in rows["m"] and "-" in rows["idle"], (column, out)
    out = gpuletctl(d, "top", "--count", "2")
    first, second = [line for line in out.splitlines() if line.startswith("m ")]
    assert "80.00%" in first and "80.00%" not in second  # nothing came in that second
    assert "BUSY" in out


def test_explain_is_of_the_running_plan_when_no_file_is_given(make):
    d = make(sim=sim_file({"m": 2000, "other": 500}))
    for n in ("m", "other"):
        d.put(n, models.identity(), "?max_batch=4&slo_ms=100&rate_rps=20")
    report = json.loads(gpuletctl(d, "explain", "--json"))
    assert {m["model"] for m in report["models"]} == {"m", "other"} and report["valid"] is True
    running = {(g["device"], g["units"]) for g in d.admin_get("/v1/plan")["gpulets"]}
    assert {(g["device"], g["units"]) for m in report["models"] for g in m["gpulets"]} == running
    assert "the running plan" in report["policy"]
    (one,) = json.loads(gpuletctl(d, "explain", "m", "--json"))["models"]
    assert one["model"] == "m" and one["slo_ms"] == 100
    assert "m: SLO 100 ms, 20 requests/s" in gpuletctl(d, "explain", "m")
    other = json.loads(gpuletctl(d, "explain", "--policy", "equal", "--json"))
    assert other["policy"] == "equal"
    gpuletctl(d, "explain", "nobody", status=1)
