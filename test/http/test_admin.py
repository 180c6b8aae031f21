"""The admin surface: models, devices, gpu-lets, plan, events, drain, metrics, and who may."""
import http.client
import json
import os
import socket
import stat
import threading
import time

import numpy as np
import pytest

import models
from daemon import Reply, error_of, metric, sim_file, until

X = np.array([[1, 2, 3, 4]], dtype=np.float32)


@pytest.fixture(scope="module")
def daemon(make_shared):
    d = make_shared(sim=sim_file({n: {"us": 300, "answer": "echo"} for n in ("base", "other", "m")}),
                    config={("limits", "model-bytes"): 4 << 20})  # fmt: skip
    d.put("base", models.identity())
    return d


@pytest.fixture
def name(daemon, request):
    """A model of the test's own, gone afterwards."""
    yield "m"
    daemon.admin("DELETE", "/v1/models/m")


def versions(daemon, name):
    return sorted(p.split("/")[2] for p in daemon.files() or {} if p.startswith(f"models/{name}/") and p.endswith("/model.onnx"))


# ---- PUT


def test_a_put_answers_when_the_model_serves(daemon, name):
    m = daemon.put(name, models.identity(), "?slo_ms=250.5&rate_rps=12&max_batch=4&priority=3")
    assert (m["name"], m["version"], m["state"], m["slo"]) == (name, 1, "READY", "met")
    assert (m["slo_ms"], m["rate_rps"], m["max_batch"], m["priority"]) == (250.5, 12, 4, 3)
    assert m["batches"] is True and len(m["hash"]) == 32 and m["nodes"] >= 0
    assert m["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    np.testing.assert_array_equal(daemon.infer(name, {"x": X})["y"], X)
    assert daemon.infer(name, {"x": np.tile(X, (5, 1))}, status=400).count("4")


def test_the_same_bytes_change_nothing(daemon, name):
    first = daemon.put(name, models.identity())
    files = daemon.files()
    again = daemon.put(name, models.identity())
    assert again["version"] == 1 and again["hash"] == first["hash"]
    assert {k for k in daemon.files() if k.startswith("models/")} == {k for k in files if k.startswith("models/")}
    assert daemon.put(name, models.identity(), "?slo_ms=500")["slo_ms"] == 500  # but the numbers do
    assert versions(daemon, name) == ["1"]


def test_new_bytes_are_the_next_version_and_no_request_fails_meanwhile(daemon, name):
    daemon.put(name, models.identity())
    stop, failures, count = threading.Event(), [], [0]

    def ask(i):
        c = daemon.connect()
        n = 0
        while not stop.is_set():
            x = np.full((1, 4), i * 1000 + n % 1000, np.float32)
            n += 1
            try:
                y = daemon.infer_binary(name, {"x": x}, c)["y"]
                if not np.array_equal(x, y):
                    failures.append((x, y))
            except Exception as e:  # noqa: BLE001
                failures.append(e)
        count[0] += n
        c.close()

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    try:
        for version in range(2, 7):
            assert daemon.put(name, models.identity(seed=version))["version"] == version
            until(lambda v=version: versions(daemon, name) == [str(v)], 10, "the older version's folder to go")
    finally:
        stop.set()
        for t in threads:
            t.join()
    assert not failures, failures[:3]
    assert count[0] > 20
    assert json.loads(daemon.get(f"/v2/models/{name}").body)["versions"] == ["6"]
    assert daemon.get(f"/v2/models/{name}/versions/5/ready").status == 404


def test_loading_and_removing_models_fails_no_request_for_another(daemon):
    stop, failures, count = threading.Event(), [], [0]

    def ask():
        c = daemon.connect()
        while not stop.is_set():
            try:
                np.testing.assert_array_equal(daemon.infer_binary("base", {"x": X}, c)["y"], X)
                count[0] += 1
            except Exception as e:  # noqa: BLE001
                failures.append(e)
        c.close()

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for t in threads:
        t.start()
    try:
        for i in range(8):
            daemon.put("other", models.identity(seed=i + 10))
            assert daemon.admin("DELETE", "/v1/models/other").status == 200
    finally:
        stop.set()
        for t in threads:
            t.join()
    assert not failures, failures[:3]
    assert count[0] > 20


def test_a_put_that_does_not_wait_is_durable_at_once_and_serves_soon(daemon, name):
    o = daemon.put(name, models.identity(), "?wait=0", status=202)
    assert o == {"name": name, "version": 1, "state": "LOADING"}
    assert versions(daemon, name) == ["1"]
    until(lambda: daemon.get(f"/v2/models/{name}/ready").status == 200, 20, "the model to be ready")
    np.testing.assert_array_equal(daemon.infer(name, {"x": X})["y"], X)


def test_a_put_that_does_not_wait_says_later_what_was_wrong(daemon, name):
    daemon.put(name, b"not an onnx file", "?wait=0", status=202)
    m = until(lambda: model_with_reason(daemon, name), 20, "the reason")
    assert m["state"] == "UNAVAILABLE" and versions(daemon, name) == []


def model_with_reason(daemon, name):
    r = daemon.admin("GET", f"/v1/models/{name}")
    m = json.loads(r.body) if r.status == 200 else {}
    return m if m.get("reason") else None


@pytest.mark.parametrize("query, mention", [
    ("slo_ms=fast", ["slo_ms", "fast", "3.6e+06"]), ("slo_ms=-1", ["slo_ms", "-1"]), ("slo_ms=", ["slo_ms"]),
    ("slo_ms=nan", ["slo_ms", "nan"]), ("rate_rps=1e10", ["rate_rps", "1e10"]), ("max_batch=1025", ["max_batch", "1025", "1024"]),
    ("max_batch=2.5", ["max_batch", "2.5", "whole"]), ("queue=-1", ["queue"]), ("priority=x", ["priority"]),
    ("precision=fp16", ["precision", "fp16", "fp32"]), ("wait=maybe", ["wait", "maybe"]), ("nonsense=1", ["nonsense"]),
    ("slo_ms=%zz", ["slo_ms"]),
])  # fmt: skip
def test_a_parameter_of_put_is_checked(daemon, query, mention):
    before = daemon.files()
    error = daemon.put("m", models.identity(), f"?{query}", status=400)
    for word in mention:
        assert word in error, (word, error)
    assert daemon.files() == before and daemon.admin("GET", "/v1/models/m").status == 404


@pytest.mark.parametrize("bad", [
    "a%20b", ".hidden", "a%2Fb", "%2e%2e", "x" * 129, "stats", "a%00b", "%C3%A9", "a%5Cb", "a:b", "a@1", "%0a",
])  # fmt: skip
def test_a_name_that_cannot_be_a_model_is_refused(daemon, bad):
    before = daemon.files()
    daemon.put(bad, models.identity(), status=400)
    assert daemon.files() == before


def test_names_of_all_allowed_letters_work(daemon):
    good = "Az09._-" + "y" * 121
    daemon.put(good, models.identity())
    assert daemon.get(f"/v2/models/{good}/ready").status == 200
    assert daemon.admin("DELETE", f"/v1/models/{good}").status == 200


def test_an_empty_put_is_refused(daemon):
    assert "empty" in daemon.put("m", b"", status=400)


def test_a_model_over_the_limit_is_413_and_leaves_nothing(daemon):
    before = daemon.files()
    size = (4 << 20) + 1
    with daemon.wire(admin=True) as w:
        head = "PUT /v1/models/m HTTP/1.1\r\nHost: localhost\r\n"
        r = w.ask(head + f"Content-Length: {size}\r\nExpect: 100-continue\r\n\r\n")
        assert r.status == 413 and str(size) in error_of(r) and str(4 << 20) in error_of(r)
    with daemon.wire(admin=True) as w:  # chunked: known only when it is there
        w.send(head + "Transfer-Encoding: chunked\r\n\r\n")
        part = b"%x\r\n%s\r\n" % (1 << 20, bytes(1 << 20))
        w.send(part * 5 + b"0\r\n\r\n")
        r = w.read()
        assert r.status == 413 and str(4 << 20) in error_of(r)
    until(lambda: daemon.files() == before, 10, "what was there of them to be removed")
    assert daemon.admin("GET", "/v1/models/m").status == 404


def test_external_data_is_put_first_and_used_by_the_model(daemon, name, tmp_path):
    models.export.export_small(models.export.external, tmp_path / "external.onnx", "dynamic", 17, "torchscript")
    weights = (tmp_path / "external.weights").read_bytes()
    onnx = (tmp_path / "external.onnx").read_bytes()
    assert "external.weights" in daemon.put(name, onnx, status=400)
    r = daemon.admin("PUT", f"/v1/models/{name}/files/external.weights", weights)
    assert r.status == 200, r.body
    first = daemon.put(name, onnx)
    assert first["weights_bytes"] >= 16 * 8 * 4
    x = np.zeros((2, 16), np.float32)
    assert daemon.infer(name, {"x": x})["y"].shape == (2, 8)
    assert any(p.endswith("/external.weights") for p in daemon.files() if p.startswith(f"models/{name}/"))
    # Other weights beside the same graph are another model.
    assert daemon.admin("PUT", f"/v1/models/{name}/files/external.weights", weights[::-1]).status == 200
    second = daemon.put(name, onnx)
    assert second["version"] == first["version"] + 1 and second["hash"] != first["hash"]


@pytest.mark.parametrize("bad", ["..", "%2e%2e", "a%2Fb", "model.onnx", "model.json", "prepared.bin", "x" * 200, ".x"])
def test_a_file_name_that_could_escape_or_overwrite_is_refused(daemon, bad):
    before = daemon.files()
    r = daemon.admin("PUT", f"/v1/models/m/files/{bad}", b"data")
    assert r.status == 400, (bad, r.status, r.body)
    error_of(r)
    assert daemon.files() == before


# ---- GET, PATCH, DELETE


def test_models_are_listed_with_what_was_registered(daemon):
    listed = daemon.admin_get("/v1/models")["models"]
    assert [m for m in listed if m["name"] == "base"] == [daemon.admin_get("/v1/models/base")]
    r = daemon.admin("GET", "/v1/models/nobody")
    assert r.status == 404 and "nobody" in error_of(r)


def test_patch_changes_numbers_and_keeps_the_version(daemon, name):
    daemon.put(name, models.identity())
    r = daemon.admin("PATCH", f"/v1/models/{name}", {"slo_ms": 125.25, "max_batch": 2})
    m = json.loads(r.body)
    assert r.status == 200 and (m["version"], m["slo_ms"], m["max_batch"]) == (1, 125.25, 2)
    m = json.loads(daemon.admin("PATCH", f"/v1/models/{name}?rate_rps=7", {}).body)
    assert (m["rate_rps"], m["slo_ms"], m["max_batch"]) == (7, 125.25, 2)
    assert json.loads(daemon.get(f"/v2/models/{name}/config").body)["max_batch_size"] == 2
    daemon.infer(name, {"x": np.tile(X, (3, 1))}, status=400)
    m = json.loads(daemon.admin("PATCH", f"/v1/models/{name}", {"slo_ms": 0}).body)
    assert m["slo"] == "none"


@pytest.mark.parametrize("body", [{}, {"slo_ms": "x"}, {"slo_ms": -1}, {"nonsense": 1}, {"slo_ms": None}, {"slo_ms": [1]}, [], "{"])
def test_patch_refuses_what_is_wrong_and_changes_nothing(daemon, body):
    before = without_counts(daemon.admin_get("/v1/models/base"))
    r = daemon.admin("PATCH", "/v1/models/base", body)
    assert r.status == 400, r.body
    error_of(r)
    assert without_counts(daemon.admin_get("/v1/models/base")) == before


def without_counts(m):
    """Nor what is measured of the requests of other tests: a mean rate falls by itself."""
    return {k: v for k, v in m.items() if k not in ("success", "queued", "rejected", "late", "failed", "demand")}


def test_patch_and_delete_of_an_unknown_model_are_404(daemon):
    for method, body in (("PATCH", {"slo_ms": 1}), ("DELETE", None)):
        r = daemon.admin(method, "/v1/models/nobody", body)
        assert r.status == 404 and "nobody" in error_of(r)


def test_a_deleted_model_leaves_nothing(daemon):
    before = set(daemon.files())
    daemon.put("m", models.identity())
    assert daemon.admin("DELETE", "/v1/models/m").status == 200
    assert daemon.get("/v2/models/m/ready").status == 404
    assert daemon.admin("GET", "/v1/models/m").status == 404
    assert set(daemon.files()) == before
    assert daemon.put("m", models.identity(seed=5))["version"] == 1
    daemon.admin("DELETE", "/v1/models/m")


# ---- devices, gpu-lets, plan


def test_devices_describe_what_there_is(daemon):
    o = daemon.admin_get("/v1/devices")
    (d,) = o["devices"]
    assert (d["name"], d["kind"], d["units"], d["granules"], d["mode"]) == ("sim0", "simulated made-up", 4, 4, "sim")
    assert d["state"] == "ok"
    assert 0 <= o["host_used_bytes"] <= o["host_bytes"] == 1 << 30


def test_gpulets_share_no_granule_and_name_their_models(daemon):
    lets = daemon.admin_get("/v1/gpulets")["gpulets"]
    serving = [g for g in lets if g["state"] == "serving"]
    granules = [n for g in serving for n in g["granules"]]
    assert granules and len(granules) == len(set(granules)) and set(granules) <= set(range(4))
    assert all(g["units"] == len(g["granules"]) for g in serving)
    assert "base" in {m["model"] for g in serving for m in g["models"]}


def test_the_plan_can_be_read_and_tried_without_changing_it(daemon):
    plan = daemon.admin_get("/v1/plan")
    assert (plan["policy"], plan["pinned"], plan["error"]) == ("gpuletd", False, "")
    r = daemon.admin("POST", "/v1/plan", {})
    dry = json.loads(r.body)
    assert r.status == 200 and {m["model"] for m in dry["models"]} >= {"base"}
    assert all(g["granules"] for g in dry["gpulets"])
    assert daemon.admin_get("/v1/plan")["epoch"] == plan["epoch"]


def test_the_running_problem_is_a_problem_file_with_the_running_plan(daemon):
    p = daemon.admin_get("/v1/problem")
    lets = [g for g in daemon.admin_get("/v1/gpulets")["gpulets"] if g["state"] == "serving"]
    assert p["version"] == 1 and p["types"][0]["granules"] == 4
    base = next(m for m in p["models"] if m["name"] == "base")
    assert base["max_batch"] >= 1
    table = base["profile"][p["types"][0]["name"]]
    assert len(table["run_ms"]) == len(table["units"])
    assert all(len(row) == len(table["batch"]) for row in table["run_ms"])
    assert sorted(s["model"] for g in p["plan"]["gpulets"] for s in g["shares"]) == sorted(
        s["model"] for g in lets for s in g["models"])
    assert {v["model"] for v in p["plan"]["verdicts"]} == {m["name"] for m in p["models"]}


def pin(daemon, lets):
    return daemon.admin("PUT", "/v1/plan", {"gpulets": lets})


def test_a_pinned_plan_is_what_runs_until_it_is_released(daemon, name):
    daemon.put(name, models.identity())
    one = {"device": "sim0", "granules": [0], "models": [{"model": "base", "batch": 4}]}
    two = {"device": "sim0", "granules": [2, 3], "models": [{"model": name}]}
    r = pin(daemon, [one, two])
    assert r.status == 200, r.body
    plan = daemon.admin_get("/v1/plan")
    assert plan["pinned"] is True
    lets = {tuple(g["granules"]): [(m["model"]) for m in g["models"]] for g in plan["gpulets"] if g["state"] == "serving"}
    assert lets == {(0,): ["base"], (2, 3): [name]}
    for n in ("base", name):
        np.testing.assert_array_equal(daemon.infer(n, {"x": X})["y"], X)
    r = daemon.admin("DELETE", "/v1/plan")
    assert r.status == 200 and daemon.admin_get("/v1/plan")["pinned"] is False
    np.testing.assert_array_equal(daemon.infer(name, {"x": X})["y"], X)


def test_what_the_plan_says_pins_it_as_it_is(daemon):
    for order in ("deadline", "deferred", None):
        let = {"device": "sim0", "granules": [1, 2], "models": [{"model": "base", "batch": 2}]}
        assert pin(daemon, [{**let, **({"order": order} if order else {})}]).status == 200
        said = [g for g in daemon.admin_get("/v1/plan")["gpulets"] if g["state"] == "serving"]
        assert [g["order"] for g in said] == [order or "turns"]
        assert pin(daemon, said).status == 200  # with all that it says besides
        again = [g for g in daemon.admin_get("/v1/plan")["gpulets"] if g["state"] == "serving"]
        same = ("id", "device", "granules", "order")
        assert [[g[k] for k in same] for g in again] == [[g[k] for k in same] for g in said]
        assert daemon.admin_get("/v1/problem")["plan"]["gpulets"][0].get("order", "turns") == (order or "turns")
    error = error_of(pin(daemon, [{"device": "sim0", "granules": [0], "order": "alphabet", "models": [{"model": "base"}]}]))
    assert "'gpulets'[0]: 'order' is 'alphabet', not one of turns, waiting, deadline, deferred" in error
    assert daemon.admin("DELETE", "/v1/plan").status == 200


@pytest.mark.parametrize("lets", [
    [], [{}], [1], {"a": 1},
    [{"device": "nothing", "granules": [0], "models": [{"model": "base"}]}],
    [{"device": "sim0", "granules": [4], "models": [{"model": "base"}]}],
    [{"device": "sim0", "granules": [-1], "models": [{"model": "base"}]}],
    [{"device": "sim0", "granules": [99999], "models": [{"model": "base"}]}],
    [{"device": "sim0", "granules": ["0"], "models": [{"model": "base"}]}],
    [{"device": "sim0", "granules": [], "models": [{"model": "base"}]}],
    [{"device": "sim0", "granules": [0], "models": [{"model": "nobody"}]}],
    [{"device": "sim0", "granules": [0], "models": [{"model": "base", "batch": -1}]}],
    [{"device": "sim0", "granules": [0], "models": [{"model": "base", "batch": 5000}]}],
    [{"device": "sim0", "granules": [0], "models": {}}],
    [{"device": "sim0", "granules": [0], "order": "alphabet", "models": [{"model": "base"}]}],
    [{"device": "sim0", "granules": [0], "order": 1, "models": [{"model": "base"}]}],
    [{"device": "sim0", "granules": [0, 1], "models": [{"model": "base"}]},
     {"device": "sim0", "granules": [1, 2], "models": [{"model": "base"}]}],
])  # fmt: skip
def test_a_bad_pin_is_refused_and_changes_nothing(daemon, lets):
    before = daemon.admin_get("/v1/plan")
    r = pin(daemon, lets)
    assert r.status == 400, (r.status, r.body)
    error_of(r)
    after = daemon.admin_get("/v1/plan")
    assert (after["epoch"], after["pinned"]) == (before["epoch"], before["pinned"])
    np.testing.assert_array_equal(daemon.infer("base", {"x": X})["y"], X)


def test_an_slo_below_the_solo_latency_is_kept_as_unmet_and_served(make):
    d = make(sim=sim_file({"slow": {"us": 30000, "answer": "echo"}, "fast": {"us": 500, "answer": "echo"}}))
    d.put("fast", models.identity(), "?slo_ms=100")
    m = d.put("slow", models.identity(seed=1), "?slo_ms=5")
    assert m["state"] == "READY" and m["slo"] == "unmet" and m["limit"] == "slo"
    assert 30 <= m["least_slo_ms"] <= 300
    np.testing.assert_array_equal(d.infer("slow", {"x": X})["y"], X)
    assert d.admin_get("/v1/models/fast")["slo"] == "met"
    assert [u["model"] for u in d.admin_get("/v1/plan")["unmet"]] == ["slow"]
    assert metric(d.metrics(), "gpuletd_model_slo_unmet", model="slow") == 1
    held = json.loads(d.admin("PATCH", "/v1/models/slow", {"slo_ms": m["least_slo_ms"] + 1}).body)
    assert held["slo"] == "met", held  # what it said would hold, holds


# ---- events, drain, metrics


def test_events_tell_of_a_load_and_continue_where_one_stopped(daemon, name):
    last = daemon.admin_get("/v1/events")["last"]
    daemon.put(name, models.identity())
    o = daemon.admin_get(f"/v1/events?since={last}")
    assert any(e.get("model") == name for e in o["events"]) and o["last"] > last
    assert all(e["message"] and e["level"] in range(8) and e["at_ms"] > 1_600_000_000_000 for e in o["events"])
    later = daemon.admin_get(f"/v1/events?since={o['last']}")["events"]  # what was replaced closes about now
    assert not [e for e in later if e in o["events"] or e.get("model") == name]


def test_a_drained_daemon_refuses_inference_and_readiness_until_it_is_undrained(daemon):
    o = json.loads(daemon.admin("POST", "/v1/drain").body)
    assert o["draining"] is True
    try:
        r = daemon.get("/v2/health/ready")
        assert r.status == 503
        error_of(r)
        assert daemon.get("/v2/health/live").status == 200
        daemon.infer("base", {"x": X}, status=503)
    finally:
        assert json.loads(daemon.admin("DELETE", "/v1/drain").body)["draining"] is False
    assert daemon.get("/v2/health/ready").status == 200
    np.testing.assert_array_equal(daemon.infer("base", {"x": X})["y"], X)


def settled(d):
    """The metrics when no reply is left to be counted: that is done after it was sent."""
    looks = [d.metrics()]

    def is_settled():
        time.sleep(0.05)
        looks.append(d.metrics())
        return metric(looks[-1], "gpuletd_http_replies", port="data") == metric(looks[-2], "gpuletd_http_replies", port="data")

    until(is_settled, 20, "the replies to be counted", d)
    return looks[-1]


def test_metrics_are_prometheus_text_and_count(daemon):
    before = settled(daemon)
    for _ in range(3):
        daemon.infer("base", {"x": np.tile(X, (2, 1))})
    daemon.infer("base", {"y": X}, status=400)
    after = settled(daemon)

    def more(name, **labels):
        return metric(after, name, **labels) - metric(before, name, **labels)

    assert more("nv_inference_request_success", model="base", version="1") == 3
    assert more("nv_inference_count", model="base") == 6
    assert more("nv_inference_exec_count", model="base") == 3
    assert more("nv_inference_compute_infer_duration_us", model="base") >= 3 * 300
    assert more("gpuletd_http_replies", port="data", status=200) == 3
    assert more("gpuletd_http_replies", port="data", status=400) == 1
    assert metric(after, "gpuletd_pending_requests") == 0
    assert daemon.get("/metrics").status == 404


def test_the_page_draws_the_daemon(daemon):
    r = daemon.admin("GET", "/")
    assert r.status == 200 and r.headers["Content-Type"].startswith("text/html") and b"</html>" in r.body
    assert b"http://" not in r.body.replace(b"http://www.w3.org", b"") and b"https://" not in r.body


# ---- who may


def over_unix(daemon, method, path, headers=None, body=None):
    c = http.client.HTTPConnection("localhost")
    c.sock = socket.socket(socket.AF_UNIX)
    c.sock.connect(str(daemon.socket))
    c.request(method, path, body, headers or {})
    r = c.getresponse()
    return Reply(r.status, r.headers, r.read())


def test_the_unix_socket_serves_the_admin_surface_to_its_group(daemon):
    mode = os.stat(daemon.socket).st_mode
    assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o660
    r = over_unix(daemon, "GET", "/v1/models", {"Host": "anything"})
    assert r.status == 200 and json.loads(r.body)["models"]
    assert over_unix(daemon, "PUT", "/v1/models/m", body=models.identity()).status == 200
    assert over_unix(daemon, "DELETE", "/v1/models/m").status == 200


@pytest.mark.parametrize("host, status", [
    ("localhost", 200), ("LOCALHOST:1", 200), ("127.0.0.1", 200), ("[::1]:8001", 200),
    ("evil.example", 403), ("localhost.evil.example", 403), ("127.0.0.1.evil.example", 403), ("localhostx", 403),
])  # fmt: skip
def test_the_host_header_must_name_this_machine(daemon, host, status):
    r = daemon.admin("GET", "/v1/models", headers={"Host": host})
    assert r.status == status
    if status == 403:
        assert host in error_of(r)


def test_a_foreign_origin_may_neither_read_nor_change(daemon):
    for method, path, body in (("GET", "/v1/models", None), ("PUT", "/v1/models/m", b"x" * 100), ("POST", "/v1/drain", b"{}"),
                               ("DELETE", "/v1/models/base", None), ("GET", "/metrics", None)):  # fmt: skip
        for origin in ("http://evil.example", "null", f"https://127.0.0.1:{daemon.admin_port}", "http://127.0.0.1:1"):
            r = daemon.admin(method, path, body, {"Origin": origin})
            assert r.status == 403, (method, origin)
            error_of(r)
    own = {"Origin": f"http://127.0.0.1:{daemon.admin_port}"}
    assert daemon.admin("GET", "/v1/models", headers=own).status == 200
    assert daemon.get("/v2/health/ready").status == 200


def test_the_token_opens_what_is_closed_and_no_other_does(make):
    d = make(start=False)
    (d.folder / "token").write_text("s3cret-token\n")
    d.set({("admin", "token-file"): d.folder / "token", ("http", "repository-api"): "token"})
    d.start()
    evil = {"Host": "evil.example"}
    assert d.admin("GET", "/v1/models", headers=evil | {"Authorization": "Bearer s3cret-token"}).status == 200
    for wrong in ("Bearer s3cret-toke", "Bearer s3cret-token2", "Bearer ", "s3cret-token", "Basic s3cret-token", "Bearer S3cret-token"):
        assert d.admin("GET", "/v1/models", headers=evil | {"Authorization": wrong}).status == 403, wrong
    # The inference port's model control wants the token too when so configured.
    d.put("m", models.identity())
    r = d.post("/v2/repository/models/m/unload", {})
    assert r.status in (401, 403)
    error_of(r)
    assert d.get("/v2/models/m/ready").status == 200
    r = d.post("/v2/repository/models/m/unload", {}, headers={"Authorization": "Bearer s3cret-token"})
    assert r.status == 200, r.body


def test_model_control_can_be_switched_off_on_the_inference_port(make):
    d = make(config={("http", "repository-api"): "off", ("http", "metrics"): "yes"})
    d.put("m", models.identity())
    for verb in ("load", "unload"):
        r = d.post(f"/v2/repository/models/m/{verb}", {})
        assert r.status in (403, 501, 503), r.status
        error_of(r)
    assert d.get("/v2/models/m/ready").status == 200
    assert metric(d.metrics(admin=False), "gpuletd_draining") == 0
