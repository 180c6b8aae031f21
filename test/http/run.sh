#!/bin/sh
# Every test of the daemon from outside, a Python process a file, two at a time (TEST_JOBS).
#   test/http/run.sh [FILE...]
# BUILD is the folder of the daemon (build), PYTHON the interpreter (.venv-test/bin/python).
# FULL=1 also tests the large models that are left out otherwise.
set -u
cd "$(dirname "$0")/../.." || exit 1
python=${PYTHON:-.venv-test/bin/python}
export BUILD="${BUILD:-build}" python
# Those that take longest begin.
[ $# -gt 0 ] || set -- $(printf 'test/http/test_%s.py\n' outputs neighbours robust demand live load; ls test/http/test_*.py)
out=$(mktemp -d) || exit 1
trap 'rm -rf "$out"' EXIT
export out
printf '%s\n' "$@" | awk '!seen[$0]++' | xargs -P "${TEST_JOBS:-2}" -I{} sh -c '
    log=$out/$(basename {})
    begun=$(date +%s)
    timeout 900 "$python" -m pytest -q -s -p no:cacheprovider --no-header --tb=short --basetemp="$log.tmp" {} >"$log" 2>&1
    rc=$?
    [ $rc -eq 0 ] || grep -q "^not ok - " "$log" || echo "not ok - {} ended with status $rc" >>"$log"
    [ $rc -eq 0 ] && grep "^ok - \|^skipped - " "$log" || sed "/^[.FEs]*$/d" "$log"
    echo "# {} took $(($(date +%s) - begun)) s"'
! grep -q '^not ok - ' "$out"/*.py
