"""gpuletctl plan, explain, simulate and fit on files: no daemon.

The problems are small enough to be planned in the head: a device of four units, runs that take
8 ms on one unit, 4 ms on two, 2 ms on four, of any batch up to four, and no neighbour disturbs."""
import copy
import json
import os
import pty
import select
import subprocess
import time
import xml.etree.ElementTree as ET

import pytest

from daemon import BUILD, ENV, ROOT, SLOW

GPULETCTL = (BUILD if BUILD.is_absolute() else ROOT / BUILD) / "gpuletctl"
DATA = ROOT / "test/data/plan"
SVG = "{http://www.w3.org/2000/svg}"


def run(*args, status=0, stdin=None):
    """(stdout, stderr) of gpuletctl, which must end with this status (None: any)."""
    done = subprocess.run([GPULETCTL, *map(str, args)], capture_output=True, text=True, env=ENV,
                          input=stdin, timeout=120 * SLOW, cwd=ROOT)
    assert status is None or done.returncode == status, (args, done.returncode, done.stdout[-500:], done.stderr)
    return done.stdout, done.stderr


def run_json(*args, status=0):
    return json.loads(run(*args, "--json", status=status)[0])


def problem(*models, devices=3, **rules):
    return {
        "version": 1,
        "types": [{"name": "four", "granules": 4, "mem_bytes": 1000}],
        "devices": [{"type": "four", "count": devices}],
        "rules": {"rule": "part", "slo_part": 0.5, "max_shares": 1, "as_few": True, **rules},
        "models": [{"arrivals": "paced", "max_batch": 1, "profile": {"four": {
            "batch": [1, 4], "units": [1, 2, 4], "run_ms": [[8, 8], [4, 4], [2, 2]]}}, **m}
            for m in models],
    }


@pytest.fixture
def write(tmp_path):
    def to_file(content, name="problem.json"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path
    return to_file


def lets(report):
    """[(device, units, {model: batch})], sorted"""
    return sorted((g["device"], g["units"], tuple((s["model"], s["batch"]) for s in g["shares"]))
                  for g in report["gpulets"])


ONE_UNIT = [{"name": n, "slo_ms": 20, "rate_rps": 100} for n in "abcd"]


# ---- plan


def test_four_models_that_need_one_unit_each_fill_one_device(write):
    report = run_json("plan", write(problem(*ONE_UNIT)))
    assert report["devices_used"] == 1 and report["met"] == 4 and report["valid"] is True
    assert sorted(g["units"] for g in report["gpulets"]) == [1, 1, 1, 1]
    assert report["bound"] == pytest.approx(0.8)  # 4 x 100/s x 8 ms x a quarter of a device
    share = report["gpulets"][0]["shares"][0]
    assert share["run_ms"] == 8 and share["duty"] == pytest.approx(0.8) and share["holds"]


def test_a_rate_that_one_unit_cannot_serve_takes_two(write):
    a = {"name": "a", "slo_ms": 20, "rate_rps": 200}
    report = run_json("plan", write(problem(a, devices=1, max_lets=1)))
    assert [(u, m) for _, u, m in lets(report)] == [(2, (("a", 1),))]


def test_the_table_names_devices_used_the_bound_and_each_gpu_let(write):
    out, said = run("plan", write(problem(*ONE_UNIT)))
    assert said == ""
    assert "1 of 3 devices used; all that has a rate needs at least 0.800 devices, this takes 1 (25.0 % more)" in out
    assert "4 of 4 models met" in out
    assert sum(line.startswith("four-") for line in out.splitlines()) == 4


def test_an_slo_that_no_size_holds_is_unmet_and_the_status_is_3(write):
    path = write(problem(*ONE_UNIT[:1], {"name": "hasty", "slo_ms": 3, "rate_rps": 10}))
    report = run_json("plan", path, status=3)
    hasty = report["models"][1]
    assert hasty["met"] is False and hasty["limit"] == "slo" and report["models"][0]["met"]
    # half of it must do for a run; the fastest takes 2 ms
    assert hasty["least_slo_ms"] >= 4 and "SLO" in hasty["needed"]
    out, _ = run("plan", path, status=3)
    assert "UNMET hasty: limit: slo" in out and "% more" not in out


def test_a_rate_beyond_all_devices_is_unmet_with_the_devices_that_it_needs(write):
    path = write(problem({"name": "a", "slo_ms": 20, "rate_rps": 1500}, devices=2))
    (a,) = run_json("plan", path, status=3)["models"]
    assert a["limit"] in ("rate", "units") and a["most_rps"] == pytest.approx(1000, rel=0.01)
    assert a["need"] == pytest.approx(1, rel=0.01) and "devices more" in a["needed"]


def test_a_model_larger_than_a_device_is_unmet_for_memory(write):
    path = write(problem({"name": "a", "slo_ms": 20, "rate_rps": 1, "weights_bytes": 1001}))
    (a,) = run_json("plan", path, status=3)["models"]
    assert a["limit"] == "memory" and "1001 bytes" in a["needed"] and "has 1000" in a["needed"]


def test_a_problem_may_come_from_standard_input():
    out, _ = run("plan", "-", "--json", stdin=json.dumps(problem(*ONE_UNIT)))
    assert json.loads(out)["met"] == 4


def test_all_policies_are_compared_in_one_table(write):
    path = write(problem(*ONE_UNIT))
    table = run_json("plan", path, "--policy", "all")
    ours = next(p for p in table["policies"] if p["policy"] == "gpuletd")
    assert ours["devices_used"] == 1 and ours["met"] == 4 and ours["valid"] is True
    assert len(table["policies"]) >= 2
    for p in table["policies"]:
        assert p.get("error") or {"devices_used", "met", "valid", "time_ms"} <= set(p), p
    lines = run("plan", path, "--policy", "all")[0].splitlines()
    assert {p["policy"] for p in table["policies"]} <= {line.split()[0] for line in lines}


def test_the_published_example_fits_on_one_gpu():
    report = run_json("plan", DATA / "igniter-3.json")
    assert report["devices_used"] == 1 and report["met"] == 3 and report["valid"] is True


def test_a_plan_that_was_written_passes_the_check_when_it_is_read(write, tmp_path):
    path, out = write(problem(*ONE_UNIT)), tmp_path / "plan.json"
    made = run_json("plan", path, "--out", out)
    read = run_json("plan", path, "--check", "--plan", out)
    assert read["valid"] is True and lets(read) == lets(made) and "file " in read["policy"]


def test_a_plan_in_the_problem_file_itself_is_checked(write, tmp_path):
    p, out = problem(*ONE_UNIT), tmp_path / "plan.json"
    run("plan", write(p), "--out", out)
    p["plan"] = json.loads(out.read_text())["plan"]
    assert run_json("plan", write(p), "--check")["valid"] is True


def test_a_plan_whose_gpu_lets_overlap_fails_the_check_with_status_1(write):
    p = problem(*ONE_UNIT[:2])
    p["plan"] = {"gpulets": [{"device": "four-0", "granules": [[0, 2]],
                              "shares": [{"model": m, "batch": 1, "rate_rps": 100}]} for m in "ab"]}
    out, said = run("plan", write(p), "--check", status=1)
    assert "NOT VALID" in out and "share a granule" in said


def test_what_runs_already_is_kept(write, tmp_path):
    out = tmp_path / "plan.json"
    made = run_json("plan", write(problem(*ONE_UNIT[:3])), "--out", out)
    report = run_json("plan", write(problem(*ONE_UNIT)), "--was", out)
    before, after = ([(g["device"], g["granules"], g["shares"][0]["model"])
                      for g in r["gpulets"]] for r in (made, report))
    assert len(before) == 3 and all(g in after for g in before) and report["met"] == 4


# ---- explain


def binds(write, **model):
    path = write(problem({"name": "a", **model}, devices=1, max_lets=1))
    (a,) = run_json("explain", path, "a")["models"]
    return a["gpulets"][0]


def test_explain_says_that_the_rate_binds(write):
    g = binds(write, slo_ms=20, rate_rps=200)
    assert g["units"] == 2 and g["binds"] == "rate"
    assert g["smaller"]["units"] == 1 and g["smaller"]["most_rps"] == pytest.approx(125)


def test_explain_says_that_the_slo_binds(write):
    g = binds(write, slo_ms=10, rate_rps=10)
    assert g["units"] == 2 and g["binds"] == "slo" and g["smaller"]["most_rps"] == 0


def test_explain_says_that_nothing_smaller_exists(write):
    g = binds(write, slo_ms=20, rate_rps=10)
    assert g["units"] == 1 and g["binds"] == "units" and g["slowdown"] == 1


def test_explain_weighs_each_neighbour_alone_and_all_together():
    report = run_json("explain", DATA / "igniter-3.json")
    assert len(report["models"]) == 3 and report["bound"] < 1
    for m in report["models"]:
        (g,) = m["gpulets"]
        each = [n["slows_this"] for n in g["neighbours"]]
        assert len(each) == 2 and all(1 < s < g["slowdown"] for s in each), g
        assert g["run_ms"] / g["alone_run_ms"] > 1
        assert m["bound"] < m["devices_taken"]
    # What one does to another is the same figure from both sides.
    by_name = {m["model"]: {n["model"]: n for n in m["gpulets"][0]["neighbours"]}
               for m in report["models"]}
    for a in by_name:
        for b in by_name[a]:
            assert by_name[a][b]["slows_this"] == by_name[b][a]["slowed_by_this"]
    assert "slowed" in run("explain", DATA / "igniter-3.json")[0]


def test_explain_names_a_model_that_is_not_there(write):
    _, said = run("explain", write(problem(*ONE_UNIT)), "zebra", status=1)
    assert "there is no model 'zebra'" in said


# ---- simulate


def test_a_plan_holds_in_the_replay_at_the_planned_rates(write, tmp_path):
    path, plan = write(problem(*ONE_UNIT)), tmp_path / "plan.json"
    run("plan", path, "--out", plan)
    report = run_json("simulate", path, "--plan", plan, "--duration", 10)
    assert report["valid"] is True and report["devices_used"] == 1
    for m in report["models"]:
        assert m["offered"] == pytest.approx(1000, abs=2) and m["in_time_share"] == 1, m
        assert 8 <= m["p50_ms"] <= m["p99_ms"] <= m["p999_ms"] <= 20, m
    assert report["goodput_rps"] == pytest.approx(400, rel=0.01)
    assert report["utilisation"] == pytest.approx(0.8, rel=0.02)
    assert report["device_s"] == pytest.approx(10, rel=0.01)


def test_twice_the_load_is_not_answered_in_time_and_nothing_is_forgotten(write):
    report = run_json("simulate", write(problem(*ONE_UNIT)), "--rate-scale", 2, "--duration", 5)
    for m in report["models"]:
        assert m["in_time_share"] < 0.75, m
        assert m["offered"] == sum(m[k] for k in ("in_time", "late", "dropped", "rejected", "lost"))


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(write):
    path = write(problem(*ONE_UNIT))
    a, b, c = (run("simulate", path, "--arrivals", "poisson", "--duration", 5, "--seed", s, "--json")
               for s in (7, 7, 8))
    assert a == b != c


@pytest.mark.parametrize("kind", ["paced", "poisson", "gamma:3", "onoff:1:2", "diurnal:5:0.5"])
def test_every_kind_of_arrivals_keeps_the_mean_rate(write, kind):
    report = run_json("simulate", write(problem(*ONE_UNIT)), "--arrivals", kind, "--duration", 100)
    assert report["offered"] == pytest.approx(40000, rel=0.15)


def test_a_sweep_falls_with_the_load(write, tmp_path):
    svg = tmp_path / "curve.svg"
    report = run_json("simulate", write(problem(*ONE_UNIT)), "--sweep", "0.5:2:4", "--svg", svg,
                      "--duration", 5)
    shares = [s["in_time_share"] for s in report["sweep"]]
    assert [s["scale"] for s in report["sweep"]] == [0.5, 1, 1.5, 2]
    assert shares[:2] == [1, 1] and shares[1] > shares[2] > shares[3]
    assert len(ET.parse(svg).getroot().findall(f"{SVG}polyline")) == 4  # two, and their legend


def test_a_sweep_of_all_policies_has_a_curve_for_each(write, tmp_path):
    svg = tmp_path / "curve.svg"
    report = run_json("simulate", write(problem(*ONE_UNIT)), "--sweep", "1:2:2", "--svg", svg,
                      "--duration", 2, "--policy", "all")
    swept = [p["policy"] for p in report["policies"] if "sweep" in p]
    assert "gpuletd" in swept
    assert {t.text for t in ET.parse(svg).getroot().iter(f"{SVG}text")} >= set(swept)


def test_a_device_that_fails_loses_what_comes_after(write):
    path = write(problem(*ONE_UNIT))
    (device,) = {g["device"] for g in run_json("plan", path)["gpulets"]}
    report = run_json("simulate", path, "--fail", f"{device}@4", "--duration", 10)
    for m in report["models"]:
        assert m["in_time"] == pytest.approx(400, abs=3), m


def test_a_step_changes_the_rate_from_then_on(write):
    report = run_json("simulate", write(problem(*ONE_UNIT)), "--step", "0.5@5", "--duration", 10)
    assert report["offered"] == pytest.approx(4 * (500 + 250), rel=0.01)


def test_a_trace_that_names_models_is_replayed_at_its_own_times(write):
    trace = write("time_s,model\n0,a\n0.5,a\n0.6,other\n1,b\n3,a\n", "trace.csv")
    out, said = run("simulate", write(problem(*ONE_UNIT)), "--trace", trace, "--json")
    assert {m["model"]: m["offered"] for m in json.loads(out)["models"]} == {
        "a": 3, "b": 1, "c": 0, "d": 0}
    assert "1 rows of" in said and "name no model" in said


def test_a_trace_without_names_gives_every_model_its_own_mean_rate(write):
    trace = write("time_s\n" + "".join(f"{i * 0.25}\n" for i in range(400)), "trace.csv")
    report = run_json("simulate", write(problem(*ONE_UNIT)), "--trace", trace, "--duration", 3)
    assert all(m["offered"] == pytest.approx(300, abs=2) for m in report["models"])


# ---- fit


def test_fit_prints_what_a_problem_file_takes(write):
    pairs = DATA / "igniter-pairs.json"
    report = run_json("fit", pairs)
    assert report["interference"]["kind"] == "pressure" and report["interference"]["terms"]
    assert 0 < report["fitted"]["mean_error"] < 0.2 and report["fitted"]["n"] == 1500
    p = problem(*ONE_UNIT)
    p["types"][0]["interference"] = report["interference"]
    assert run_json("plan", write(p))["valid"] is True


def test_fit_leaves_each_pair_of_models_out():
    report = run_json("fit", DATA / "igniter-pairs.json", "--leave-one-out", "--kind", "gpulet")
    assert len(report["left_out"]) == 6 and len(report["interference"]["c"]) == 5
    assert sum(f["n"] for f in report["left_out"]) == report["left_out_all"]["n"] == 1500
    assert report["left_out_all"]["mean_error"] >= report["fitted"]["mean_error"]
    out, _ = run("fit", DATA / "igniter-pairs.json", "--leave-one-out")
    table = out[out.index("}\n") + 2:]
    assert "alexnet+vgg19" in table and "all, each left out" in table
    assert json.loads(out[:out.index("}\n") + 2])["kind"] == "pressure"


# ---- drawings


def test_the_drawing_has_each_gpu_let_with_its_share_of_the_time(write, tmp_path):
    svg = tmp_path / "plan.svg"
    names = ['<a> & "b"', "c"]
    run("plan", write(problem(*({"name": n, "slo_ms": 20, "rate_rps": 100} for n in names))),
        "--svg", svg)
    root = ET.parse(svg).getroot()
    runs = [r for r in root.iter(f"{SVG}rect") if r.get("class") == "run"]
    strip = next(r for r in root.iter(f"{SVG}rect") if r.get("class") == "free")
    assert len(runs) == 2
    for r in runs:  # a quarter of the units, 80 % of the time
        assert float(r.get("width")) == pytest.approx(float(strip.get("width")) / 4, rel=1e-3)
        assert float(r.get("height")) == pytest.approx(float(strip.get("height")) * 0.8, rel=1e-3)
    tips = " ".join(r.find(f"{SVG}title").text for r in runs)
    assert all(n in tips for n in names)
    texts = [t.text for t in root.iter(f"{SVG}text")]
    assert any("units, in granules of 1" in t for t in texts)
    assert "prefers-color-scheme:dark" in root.find(f"{SVG}style").text


def test_models_that_share_a_gpu_let_are_drawn_one_below_the_other(write, tmp_path):
    svg = tmp_path / "plan.svg"
    slow = [{"name": n, "slo_ms": 100, "rate_rps": 10} for n in "abc"]
    p = problem(*slow, max_shares=0, max_lets=1, devices=1)
    report = run_json("plan", write(p), "--svg", svg)
    assert [len(g["shares"]) for g in report["gpulets"]] == [3] and report["met"] == 3
    runs = [r for r in ET.parse(svg).getroot().iter(f"{SVG}rect") if r.get("class") == "run"]
    tops = [float(r.get("y")) for r in runs]
    assert len(runs) == 3 and len({r.get("x") for r in runs}) == 1
    for r, below in zip(runs, tops[1:]):
        assert float(r.get("y")) + float(r.get("height")) == pytest.approx(below, abs=1e-3)


# ---- the document


def test_the_commands_of_the_document_run():
    commands = [line[12:].split() for line in (ROOT / "docs/planning.md").read_text().splitlines()
                if line.startswith("$ gpuletctl ")]
    assert {c[0] for c in commands} == {"plan", "explain", "simulate", "fit"}
    for c in commands:
        assert run(*c)[0]


# ---- what is wrong


def broken(change):
    p = copy.deepcopy(problem(*ONE_UNIT))
    change(p)
    return p


@pytest.mark.parametrize("change, names", [
    (lambda p: p["models"][1].update(slo_ms=-1), ["models[1].slo_ms", "-1"]),
    (lambda p: p["models"][0].update(colour="red"), ["models[0]", "colour"]),
    (lambda p: p["models"][0]["profile"]["four"]["run_ms"][1].pop(), ["run_ms[1]"]),
    (lambda p: p.update(version=2), ["version", "2"]),
    (lambda p: p["rules"].update(rule="guess"), ["rules.rule", "guess"]),
    (lambda p: p.pop("devices"), ["no devices"]),
])
def test_a_wrong_field_is_named_with_file_path_and_value(write, change, names):
    path = write(broken(change))
    for verb in ("plan", "explain", "simulate"):
        out, said = run(verb, path, status=1)
        assert out == "" and said.count("\n") == 1
        assert all(n in said for n in [str(path), *names]), said


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 1}', "\0\1", "{}" * 9])
def test_what_is_no_problem_is_refused(write, content):
    for verb in ("plan", "explain", "simulate", "fit"):
        _, said = run(verb, write(content), status=1)
        assert "problem.json" in said


def test_files_that_cannot_be_read_or_written_are_named(write):
    path = write(problem(*ONE_UNIT))
    for args in (("plan", "/nonexistent"), ("plan", path, "--out", "/nonexistent/x"),
                 ("plan", path, "--svg", "/nonexistent/x"), ("plan", path, "--was", "/nonexistent"),
                 ("explain", path, "--plan", "/nonexistent"), ("fit", "/nonexistent"),
                 ("simulate", path, "--trace", "/nonexistent"),
                 ("plan", path, "--out", "/dev/full"), ("plan", path, "--svg", "/dev/full")):
        _, said = run(*args, status=1)
        assert "'/nonexistent" in said or "'/dev/full'" in said, said


def test_a_plan_of_another_problem_names_the_model_that_is_not_here(write, tmp_path):
    out = tmp_path / "plan.json"
    run("plan", write(problem({"name": "other", "slo_ms": 20, "rate_rps": 1})), "--out", out)
    _, said = run("simulate", write(problem(*ONE_UNIT)), "--plan", out, status=1)
    assert str(out) in said and "other" in said


@pytest.mark.parametrize("args, names", [
    (["plan", "FILE", "again"], ["again"]),
    (["plan", "--check"], ["problem FILE"]),
    (["plan", "FILE", "--plan", "x"], ["--plan"]),
    (["plan", "FILE", "--policy", "all", "--svg", "x"], ["--policy all"]),
    (["explain", "FILE", "a", "b"], ["FILE", "MODEL"]),
    (["simulate"], ["FILE"]),
    (["simulate", "FILE", "--svg", "x"], ["--sweep"]),
    (["simulate", "FILE", "--sweep", "1:2"], ["'1:2'", "FROM:TO:STEPS"]),
    (["simulate", "FILE", "--sweep", "2:1:3"], ["'2:1:3'"]),
    (["simulate", "FILE", "--sweep", "1:2:1e9"], ["1000 steps"]),
    (["simulate", "FILE", "--sweep", "1:2:3", "--rate-scale", "2"], ["--rate-scale"]),
    (["simulate", "FILE", "--policy", "all"], ["--sweep"]),
    (["simulate", "FILE", "--arrivals", "gamma"], ["'gamma'", "gamma:CV"]),
    (["simulate", "FILE", "--arrivals", "paced:1"], ["'paced:1'"]),
    (["simulate", "FILE", "--arrivals", "rain"], ["'rain'"]),
    (["simulate", "FILE", "--arrivals", "paced", "--trace", "x"], ["--trace"]),
    (["simulate", "FILE", "--fail", "zebra@1"], ["no device 'zebra'"]),
    (["simulate", "FILE", "--fail", "four-0"], ["DEVICE@SECOND"]),
    (["simulate", "FILE", "--step", "x@1"], ["'x'"]),
    (["simulate", "FILE", "--step", "2@-1"], ["FACTOR@SECOND"]),
    (["simulate", "FILE", "--duration", "0"], ["--duration"]),
    (["simulate", "FILE", "--duration", "-1"], ["--duration", "-1"]),
    (["simulate", "FILE", "--seed", "1.5"], ["--seed", "whole number"]),
    (["fit", "FILE", "--kind", "magic"], ["'magic'", "pressure"]),
    (["fit"], ["FILE"]),
])
def test_a_wrong_command_line_is_status_2_and_says_what(write, args, names):
    path = write(problem(*ONE_UNIT))
    _, said = run(*(path if a == "FILE" else a for a in args), status=2)
    assert all(n in said for n in names), said


def test_an_unknown_policy_is_answered_with_those_there_are(write):
    _, said = run("plan", write(problem(*ONE_UNIT)), "--policy", "zebra", status=1)
    assert "zebra" in said and "gpuletd" in said


def test_a_trace_of_other_models_is_refused(write):
    trace = write("time_s,model\n0,x\n", "trace.csv")
    _, said = run("simulate", write(problem(*ONE_UNIT)), "--trace", trace, status=1)
    assert "trace.csv" in said and "'x'" in said


def test_a_wrong_row_of_a_trace_is_named(write):
    trace = write("time_s\n0\nsoon\n", "trace.csv")
    _, said = run("simulate", write(problem(*ONE_UNIT)), "--trace", trace, status=1)
    assert "trace.csv" in said and "line 3" in said and "soon" in said


# ---- the bar


def test_what_takes_more_than_two_seconds_shows_a_bar_on_a_terminal_only(write):
    args = [GPULETCTL, "simulate", write(problem(*ONE_UNIT)), "--duration", "1e7"]
    terminal, end = pty.openpty()
    p = subprocess.Popen(args, stderr=end, stdout=subprocess.DEVNULL, env=ENV)
    os.close(end)
    seen, start = b"", time.monotonic()
    while b"%" not in seen and time.monotonic() < start + 30 * SLOW:
        if select.select([terminal], [], [], 0.5)[0]:
            seen += os.read(terminal, 4096)
    took = time.monotonic() - start
    p.kill()
    p.wait()
    os.close(terminal)
    assert b"simulating [" in seen and b"%" in seen and took >= 2
    with pytest.raises(subprocess.TimeoutExpired) as quiet:
        subprocess.run(args, capture_output=True, env=ENV, timeout=4)
    assert not quiet.value.stderr
