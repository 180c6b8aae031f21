#!/bin/bash
# make check: the parts one after the other, the time of each, and one count over all.
#
#     test/check.sh PART...        each is a target check-PART
#
# A part that prints no count of its own is one test.  What a part says is shown if it fails; a part
# that says "skipped: why" and fails counts as nothing.
set -u
cd "$(dirname "$0")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT
trap 'exit 130' INT TERM HUP

passed=0 failed=0
for part; do
    start=$SECONDS status=0
    printf '== %-8s ' "$part"
    make --no-print-directory -j"$(nproc)" "check-$part" >"$log" 2>&1 </dev/null || status=$?
    read -r p f < <(awk '/^[0-9]+ passed, [0-9]+ failed$/ { p += $1; f += $3; ok = not_ok = 0 }
                         /^ok - /     { ok++ }
                         /^not ok - / { not_ok++ }
                         END { print p + ok, f + not_ok }' "$log")
    if [ $status != 0 ] && skipped=$(grep '^skipped: ' "$log"); then
        echo "$skipped"
        continue
    fi
    [ $status = 0 ] || [ "$f" != 0 ] || f=1
    [ $((p + f)) != 0 ] || p=1
    passed=$((passed + p)) failed=$((failed + f))
    echo "$p passed, $f failed in $((SECONDS - start)) s"
    [ "$f" = 0 ] || grep -vE '^(ok - |  (CC|LD) )' "$log" | tail -n "${CHECK_LINES:-200}"
done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
