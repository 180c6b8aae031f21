"""What is measured of a model: a few points before its first plan, kept, and read again.

The device has eight units; a run takes 1 ms and 1 ms more for each row, and on one unit as long as
on eight."""
import json

import numpy as np
import pytest

import models
from daemon import error_of, metric, sim_file, until
from test_planning import run, run_json


def sim(**more):
    return sim_file({"m": {"us": 1000, "per_row_us": 1000}}, units=8, **more)


@pytest.fixture
def daemon(make):
    d = make(sim=sim())
    d.put("m", models.identity(), "?max_batch=8")
    return d


def profile(daemon, name="m"):
    return daemon.admin_get(f"/v1/profiles/{name}")


def said(daemon, word):
    """What events of profiles say it."""
    return [e["message"] for e in daemon.admin_get("/v1/events")["events"] if e["event"] == "profile" and word in e["message"]]


def kept(daemon):
    """The file, when it is what the daemon says."""
    file = daemon.state / "profiles" / "m.json"

    def is_kept():
        try:
            return json.loads(file.read_text()) == profile(daemon)
        except (OSError, ValueError):  # not yet, or a damaged one still
            return False

    until(is_kept, 20, "the profile on disk", daemon)
    return file


def killed(daemon):
    kept(daemon)
    daemon.kill()
    return daemon.start()


def test_a_few_points_are_measured_before_the_first_plan(daemon):
    p = profile(daemon)
    points = {(b, u): ms for b, u, ms in p["measured"]["points"]}
    assert {(1, 1), (1, 8), (8, 1), (8, 8)} <= set(points) and 4 < len(points) <= 12  # ten, and the seat's
    assert all(ms == pytest.approx(1 + b) for (b, _), ms in points.items())
    assert p["measured"]["key"]["backend"] == "sim" and p["measured"]["key"]["mode"] == "sim"
    (m,) = p["models"]
    table = m["profile"]["sim0"]
    for units, ms in zip(table["units"], table["run_ms"]):
        if (1, units) in points and (8, units) in points:
            assert ms == pytest.approx([1 + b for b in table["batch"]], rel=0.01)
    assert not table.get("estimated")


def test_the_planner_reads_what_was_measured(daemon, tmp_path):
    problem = json.loads(daemon.admin("GET", "/v1/problem").body)
    (m,) = problem["models"]
    assert m["profile"] == profile(daemon)["models"][0]["profile"]
    for name, o in (("problem", problem), ("profile", profile(daemon))):
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps(o))
        run("plan", file)
    assert run_json("plan", tmp_path / "profile.json")["gpulets"]


def test_after_a_kill_it_is_back_without_measuring(daemon):
    before = profile(daemon)
    assert said(daemon, "measured")
    killed(daemon)
    assert profile(daemon) == before
    assert said(daemon, "restored") == [f"{len(before['measured']['points'])} points restored"]
    assert not said(daemon, "measured")


def points_of(daemon, origin):
    return metric(daemon.metrics(), "gpuletd_model_profile_points_total", model="m", **{"from": origin})


def test_the_metrics_tell_what_was_kept_from_what_was_measured(daemon):
    assert points_of(daemon, "kept") == 0 and points_of(daemon, "measured") >= 10
    file = kept(daemon)
    daemon.kill()
    n = len(json.loads(file.read_text())["measured"]["points"])
    daemon.start()
    assert points_of(daemon, "kept") == n and points_of(daemon, "measured") == 0


def test_a_model_tells_how_long_its_load_took(daemon):
    """Ten points or more were measured, each with three runs of at least 2 ms."""
    took_ms = daemon.admin_get("/v1/models/m")["load_ms"]
    assert took_ms >= 10 * 3 * 2
    assert metric(daemon.metrics(), "gpuletd_model_load_seconds", model="m") == pytest.approx(took_ms / 1000)
    daemon.admin("PATCH", "/v1/models/m", {"slo_ms": 1000})  # that is no load
    assert daemon.admin_get("/v1/models/m")["load_ms"] == took_ms


def test_what_was_measured_on_another_device_is_refused_by_name_and_measured_again(daemon):
    kept(daemon)
    daemon.kill()
    (daemon.folder / "sim.json").write_text(json.dumps(sim(bytes_per_s=2e11)))
    daemon.start()
    (why,) = said(daemon, "measured again")
    assert "library" in why
    assert not said(daemon, "restored") and len(said(daemon, "points measured")) == 1
    kept(daemon)


def test_a_model_with_other_bytes_is_measured_again(daemon):
    before = profile(daemon)["measured"]["key"]
    daemon.put("m", models.identity(seed=3), "?max_batch=8")
    after = profile(daemon)["measured"]["key"]
    assert before["graph"] != after["graph"] and {**before, "graph": ""} == {**after, "graph": ""}
    assert any("graph" in s for s in said(daemon, "measured again"))
    kept(daemon)


@pytest.mark.parametrize("text", [
    "", "{", "[]", '{"version": 1}', '{"version": 1, "measured": {}}', '{"version": 1, "measured": {"key": 7, "points": []}}',
])  # fmt: skip
def test_a_damaged_file_is_told_and_measured_again(daemon, text):
    file = kept(daemon)
    daemon.kill()
    file.write_text(text)
    daemon.start()
    assert len(said(daemon, "measured again")) == 1
    assert profile(daemon)["measured"]["points"]
    kept(daemon)


@pytest.mark.parametrize("point", [[1, 1], [0, 1, 1.0], [1, 0, 1.0], [1, 1, 0], [1, 1, "x"], [5000, 1, 1.0], "x"])
def test_a_point_that_cannot_be_is_named(daemon, point):
    file = kept(daemon)
    daemon.kill()
    o = json.loads(file.read_text())
    o["measured"]["points"][1] = point
    file.write_text(json.dumps(o))
    daemon.start()
    (why,) = said(daemon, "measured again")
    assert "measured.points[1]" in why


def test_a_deleted_model_leaves_no_profile(daemon):
    file = kept(daemon)
    assert daemon.admin("DELETE", "/v1/models/m").status == 200
    assert not file.exists()
    r = daemon.admin("GET", "/v1/profiles/m")
    assert r.status == 404 and "'m'" in error_of(r)


def test_another_largest_batch_keeps_what_was_measured(daemon):
    before = {(b, u) for b, u, _ in profile(daemon)["measured"]["points"]}
    daemon.admin("PATCH", "/v1/models/m", {"max_batch": 4})
    p = profile(daemon)
    assert before <= {(b, u) for b, u, _ in p["measured"]["points"]}
    assert p["models"][0]["profile"]["sim0"]["batch"] == [1, 2, 4]


def test_while_nothing_comes_the_rest_is_measured_and_kept(daemon):
    first = len(profile(daemon)["measured"]["points"])
    until(lambda: len(profile(daemon)["measured"]["points"]) >= 16, 90, "all points", daemon)  # 4 batches, 4 sizes
    assert first < 16
    (m,) = profile(daemon)["models"]
    table = m["profile"]["sim0"]
    assert all(ms == pytest.approx([1 + b for b in table["batch"]]) for ms in table["run_ms"])
    n = len(profile(daemon)["measured"]["points"])
    killed(daemon)
    assert said(daemon, "restored") == [f"{n} points restored"]


@pytest.fixture(name="half")
def half_of_the_truth(daemon):
    """The profile that it finds is half of the truth, and so is what the plan counts on."""
    file = kept(daemon)
    daemon.admin("PATCH", "/v1/models/m", {"max_batch": 1})
    daemon.kill()
    o = json.loads(file.read_text())
    o["measured"]["points"] = [[b, u, ms / 2] for b, u, ms in o["measured"]["points"]]
    file.write_text(json.dumps(o))
    daemon.start()
    return daemon


def is_told_the_truth(d):
    x = {"x": np.ones((1, 4), np.float32)}
    units = d.admin_get("/v1/gpulets")["gpulets"][0]["units"]

    def points():
        return {(b, u): ms for b, u, ms in profile(d)["measured"]["points"]}

    assert points()[1, units] == pytest.approx(1)
    c = d.connect()
    until(lambda: [d.infer_binary("m", x, c) for _ in range(50)] and points()[1, units] > 1.8, 60, "the truth", d)
    assert points()[1, units] < 2.2


def test_what_serving_shows_goes_into_the_profile(half):
    is_told_the_truth(half)

    def replanned():
        events = half.admin_get("/v1/events")["events"]
        return any("a run of model 'm' takes" in e["message"] for e in events if e["event"] == "plan")

    until(replanned, 20, "another plan", half)
    problem = json.loads(half.admin("GET", "/v1/problem").body)
    assert problem["models"][0]["profile"]["sim0"]["run_ms"]


def test_what_serving_shows_is_learnt_while_the_plan_is_pinned_and_changes_no_plan(half):
    lets = [{"device": g["device"], "granules": g["granules"], "models": [{"model": "m", "batch": 1}]} for g in half.admin_get("/v1/plan")["gpulets"]]
    assert half.admin("PUT", "/v1/plan", {"gpulets": lets}).status == 200
    epoch = half.admin_get("/v1/plan")["epoch"]
    is_told_the_truth(half)
    assert half.admin_get("/v1/plan")["epoch"] == epoch


def test_where_all_gpu_lets_are_of_one_size_the_first_plan_counts_on_what_was_measured(make):
    d = make(sim=sim_file({"m": {"us": 1000, "per_row_us": 1000}}, units=1))
    d.put("m", models.identity(), "?max_batch=8&slo_ms=100")
    (share,) = d.admin_get("/v1/plan")["gpulets"][0]["models"]
    assert share["run_ms"] == pytest.approx(1 + share["batch"], rel=0.2)


def test_on_cores_the_seats_points_are_kept(make):
    d = make(backend="cpu")
    d.put("m", models.identity(), "?max_batch=4")
    points = {(b, u) for b, u, _ in profile(d)["measured"]["points"]}
    assert points >= {(1, 1), (4, 1)}
    assert "oneDNN" in profile(d)["measured"]["key"]["library"]
    killed(d)
    assert said(d, "restored") and not said(d, "points measured")
