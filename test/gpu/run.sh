#!/bin/bash
# What only a GPU can tell, from the folder that `make gpu-bundle` makes.
#
#     run.sh OUT --first | --part facts|ops|models|http|sanitize ...
#
# Appends a line of JSON for each case to OUT/results.jsonl: commit, part, case, ok, text.  A part has
# nine minutes; one that has ended well is not run again for the same commit, one that has not ended
# is named.  --first: facts, and one model.  Status 0: every case that was run is right.
set -u
here=$(cd "$(dirname "$0")" && pwd)
export GPULET_PLUGIN_DIR="$here" LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$here/lib"
commit=$(cat "$here/commit")
[ $# -ge 2 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2; }
out=$1 budget=${BUDGET:-540}
shift
mkdir -p "$out"
results=$out/results.jsonl
touch "$results"

# Lines of JSON on stdin, into the results.
keep() { sed "s/^{/{\"commit\": \"$commit\", \"part\": \"$1\", /" | tee -a "$results"; }
# "ok - name" and "not ok - name" as JSON; what follows a failure is its text.
from_lines() {
    awk 'function put() { if (name != "") {
             gsub(/["\\]/, "", name); gsub(/["\\]/, "", text)
             printf "{\"case\": \"%s\", \"ok\": %s, \"text\": \"%s\"}\n", name, ok, text; fflush() }
             name = ""; text = "" }
         /^(not )?ok - / { put(); ok = /^ok/ ? "true" : "false"; name = $0; sub(/^(not )?ok - /, "", name) }
         /^#   / { text = substr($0, 5) }
         END { put() }'
}

part_facts() { timeout "$budget" "$here/facts" "$here/models/digits"; }
part_ops() { timeout "$budget" "$here/test_ops" cuda | from_lines; return "${PIPESTATUS[0]}"; }
part_models() {
    local r=0
    for batch in 1 8; do
        (cd "$here/models" && timeout $((budget / 2)) "$here/compare" cuda $batch *) | from_lines
        [ "${PIPESTATUS[0]}" = 0 ] || r=1
    done
    return $r
}
part_sanitize() {
    command -v compute-sanitizer >/dev/null || { echo '{"case": "compute-sanitizer", "ok": false, "text": "not found"}'; return 1; }
    timeout "$budget" compute-sanitizer --error-exitcode 9 "$here/test_ops" cuda >"$out/sanitize.log" 2>&1
    local r=$?
    tail -3 "$out/sanitize.log" | sed 's/^/#   /' | { echo "$([ $r = 0 ] || echo 'not ')ok - every case under compute-sanitizer, status $r"; cat; } | from_lines
    return $r
}
# The daemon: two models, load on one, and two more come and go meanwhile.
part_http() {
    local dir ctl pid r=0 i
    dir=$(mktemp -d)
    printf '[http]\nlisten = 127.0.0.1:18000\n[admin]\nlisten = 127.0.0.1:18001\nsocket = %s/admin.sock\n[state]\ndirectory = %s/state\n[device]\nbackend = cuda\n' "$dir" "$dir" >"$dir/conf"
    "$here/gpuletd" --config "$dir/conf" >"$out/daemon.log" 2>&1 &
    pid=$!
    ctl="$here/gpuletctl --server unix:$dir/admin.sock"
    for ((i = 0; i < 300; i++)); do [ -S "$dir/admin.sock" ] && $ctl status >/dev/null 2>&1 && break; sleep 0.1; done
    say() { if [ "$1" = 0 ]; then echo "ok - $2"; else echo "not ok - $2"; r=1; fi; }
    {
        $ctl register one "$here/models/digits/model.onnx" >/dev/null; say $? "a model is taken"
        $ctl register two "$here/models/digits/model.onnx" >/dev/null; say $? "and a second"
        "$here/gpuletctl" bench --to http://127.0.0.1:18000 --duration 15 one=50@500 --json >"$dir/bench.json" &
        bench=$!
        for i in 3 4; do $ctl register "n$i" "$here/models/digits/model.onnx" >/dev/null; say $? "model $i comes under load"; done
        wait $bench
        grep -q '"failed": 0' "$dir/bench.json" && grep -q '"lost": 0' "$dir/bench.json"
        say $? "no request failed and none was lost while the GPU was cut anew"
        $ctl status | sed 's/^/#   /' | head -1
        kill -TERM $pid
        wait $pid
        say $? "SIGTERM drains and ends with status 0"
        cp "$dir/bench.json" "$out/bench.json"
        [ $r = 0 ]
    } > >(from_lines)
    r=$?
    rm -rf "$dir"
    return $r
}

run_part() {
    if grep -q "\"commit\": \"$commit\", \"part\": \"$1\", \"case\": \"(end)\", \"ok\": true" "$results"; then
        echo "part $1 was run for $commit"
        return 0
    fi
    part_"$1" > >(keep "$1")
    local r=$?
    wait $!
    if [ $r = 124 ]; then
        echo "part $1 has not ended in its time"
    else
        echo "{\"case\": \"(end)\", \"ok\": $([ $r = 0 ] && echo true || echo false), \"text\": \"status $r\"}" | keep "$1"
    fi
    return $r
}

bad=0
while [ $# -gt 0 ]; do
    case $1 in
    --first) run_part facts || bad=1
        (cd "$here/models" && timeout 100 "$here/compare" cuda 1 digits) || bad=1 ;;
    --part) case ${2-} in
        facts | ops | models | http | sanitize) run_part "$2" || bad=1; shift ;;
        *) echo "no part '${2-}'"; exit 2 ;;
        esac ;;
    *) echo "no option '$1'"; exit 2 ;;
    esac
    shift
done
exit $bad
