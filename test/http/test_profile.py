"""gpuletctl profile: no daemon."""
import pytest

import models
from test_planning import ROOT, run, run_json

DIGITS = ROOT / "test/data/digits.onnx"


def test_profile_names_every_step_and_the_shares_add_up():
    """Each step has an operator, an implementation and layouts; shares add up to one."""
    p = run_json("profile", DIGITS, "--steps", "--batch", "2")
    assert p["steps"] == len(p["by_step"]) > 0
    assert p["batch"] == 2
    assert p["reorders"] == sum(s["operator"] == "reorder" for s in p["by_step"])
    assert sum(s["share"] for s in p["by_step"]) == pytest.approx(1)
    assert all(s["implementation"] and s["in"] and s["out"] for s in p["by_step"])


def test_the_table_has_a_line_for_each_step_and_a_sum():
    lines = run("profile", DIGITS, "--steps")[0].splitlines()
    p = run_json("profile", DIGITS, "--steps")
    assert len(lines) == p["steps"] + 2
    assert "reorders" in lines[-1]
    assert run_json("profile", DIGITS).get("by_step") is None


def test_what_is_no_model_is_refused_with_its_name(tmp_path):
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"not a model")
    assert run("profile", tmp_path / "missing.onnx", status=1)[1].count("missing.onnx") == 1
    assert run("profile", bad, status=1)[1]
    run("profile", status=2)


def test_a_free_dimension_is_what_dim_says(tmp_path):
    """The model of test/models with a free length: twice the length is another number of bytes."""
    path = models.exported("freedim")
    small, large = (run_json("profile", path, "--dim", n)["activations_bytes"] for n in (64, 4096))
    assert large > small
