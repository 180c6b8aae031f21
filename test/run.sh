#!/bin/sh
# Run test programs in parallel, show what failed, and close with "N passed, N failed".
#   test/run.sh PROGRAM...
# A program prints "ok - name" or "not ok - name" for each test.  One that dies, or that ran no
# test, counts as failed.
set -u
[ $# -gt 0 ] || { echo "no test programs given"; exit 1; }
out=$(mktemp -d) || exit 1
trap 'rm -rf "$out"' EXIT
export out
run_one() {
    log=$out/$(echo "$1" | tr / _) begun=$(date +%s)
    timeout "${TEST_TIMEOUT:-600}" "$1" >"$log" 2>&1
    rc=$? took=$(($(date +%s) - begun))
    passed=$(grep -c '^ok - ' "$log"); failed=$(grep -c '^not ok - ' "$log")
    if [ $rc -ne 0 ] && [ "$failed" -eq 0 ] || [ $((passed + failed)) -eq 0 ]; then
        failed=$((failed + 1)); echo "not ok - $1 ended with status $rc" >>"$log"
    fi
    echo "$passed $failed" >"$log.count"
    if [ "$failed" -eq 0 ]; then echo "  $1: $passed passed in $took s"; else
        echo "--- $1"; grep -v '^ok - ' "$log" | head -${TEST_LINES:-60}; fi
}
for t in "$@"; do echo "$t"; done |
    xargs -P "${TEST_JOBS:-$(nproc)}" -I{} sh -c "$(sed -n '/^run_one() {/,/^}/p' "$0")
run_one {}"
# A program without its count was not run, or its log is gone.
cat "$out"/*.count | awk -v n=$# '{p += $1; f += $2} END {f += n - NR; printf "%d passed, %d failed\n", p, f; exit f > 0}'
