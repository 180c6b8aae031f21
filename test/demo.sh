#!/bin/bash
# make demo: three real models answer real images from gpu-lets of this machine's cores.
# Needs bash, curl and awk.  Leaves no process and no file.
set -eu
cd "$(dirname "$0")/.."

MODELS='digits digits-batch digits-tiny'
N_IMAGES=60 # sent to each model, one after the other
N_SHOWN=4   # of them drawn
N_BURST=600 # requests from 16 connections at once

free_port() {
    local port
    while port=$((20000 + RANDOM % 12000)); do
        (: <>/dev/tcp/127.0.0.1/$port) 2>/dev/null || break
    done
    echo $port
}

title() { printf '\n\033[1m%s\033[0m\n' "$*"; }

tmp=$(mktemp -d)
daemon=
finish() {
    [ -z "$daemon" ] || { kill -KILL "$daemon"; wait "$daemon"; } 2>/dev/null || true
    rm -rf "$tmp"
}
trap finish EXIT
trap 'exit 130' INT TERM HUP

http=$(free_port)
admin=$(free_port)
cat >"$tmp/gpuletd.conf" <<CONF
[http]
listen = 127.0.0.1:$http
[admin]
listen = 127.0.0.1:$admin
socket = $tmp/admin.sock
[state]
directory = $tmp/state
CONF
mkdir "$tmp/state"

title "1. Start the daemon"
echo "\$ gpuletd --config $tmp/gpuletd.conf &"
build/gpuletd --config "$tmp/gpuletd.conf" >"$tmp/log" 2>&1 &
daemon=$!
for _ in $(seq 200); do
    curl -sf -o /dev/null "http://127.0.0.1:$http/v2/health/ready" && break
    kill -0 "$daemon" 2>/dev/null || break
    sleep 0.05
done
curl -sf -o /dev/null "http://127.0.0.1:$http/v2/health/ready" ||
    { cat "$tmp/log"; echo "the daemon did not become ready" >&2; exit 1; }
echo "ready on port $http"

title "2. Register three models: one file each, a promise of 50 ms"
for model in $MODELS; do
    url="http://127.0.0.1:$admin/v1/models/$model?slo_ms=50"
    echo "\$ curl -T test/data/$model.onnx '$url'"
    curl -sS --fail-with-body -o "$tmp/reply" -w '  %{http_code} after %{time_total} s: ready\n' \
        -T "test/data/$model.onnx" "$url" || { cat "$tmp/reply" "$tmp/log"; exit 1; }
done

title "3. The gpu-lets they got"
echo "\$ gpuletctl status"
build/gpuletctl --server "http://127.0.0.1:$admin" status

# stdin: a line of digits.txt; stdout: the request.
request() {
    awk '{ printf "{\"inputs\":[{\"name\":\"image\",\"shape\":[1,1,8,8],\"datatype\":\"FP32\",\"data\":["
           for (i = 2; i <= 65; i++) printf "%s%d", (i > 2 ? "," : ""), $i
           print "]}]}" }'
}

# stdin: a reply and, on a line of its own, its latency in seconds: label, best score, ms.
answer() {
    awk 'NR == 1 { sub(/.*"data": *\[/, ""); sub(/\].*/, ""); n = split($0, score, ",")
                   for (i = best = 1; i <= n; i++) if (score[i] + 0 > score[best] + 0) best = i }
         END     { if (n != 10) exit 1
                   printf "%d %.2f\n", best - 1, $1 * 1000 }'
}

# stdin: a line of digits.txt, then "model said ms" of each model: the image beside the answers.
draw() {
    awk 'NR == 1 { label = $1; for (i = 0; i < 64; i++) pixel[i] = $(i + 2) }
         NR > 1  { says[NR] = sprintf("%-14s says %d  %7.2f ms  %s", $1, $2, $3,
                                      $2 == label ? "right" : "WRONG, it is a " label) }
         END     { for (row = 0; row < 8; row++) {
                       line = ""
                       for (col = 0; col < 8; col++) {
                           c = substr(" .:-=+*#%@", 1 + int(pixel[row * 8 + col] * 9 / 16), 1)
                           line = line c c
                       }
                       printf "   %s   %s\n", line, says[row]
                   }
                   print "" }'
}

title "4. Real handwriting"
n=0
while read -r image && [ $n -lt $N_IMAGES ]; do
    n=$((n + 1))
    request <<<"$image" >"$tmp/request"
    : >"$tmp/said"
    for model in $MODELS; do
        # --retry: 503 with Retry-After is an honest "not in time", and a busy machine may hear it.
        said=$(curl -s --fail --retry 3 -d "@$tmp/request" -w '\n%{time_total}' \
            "http://127.0.0.1:$http/v2/models/$model/infer" | answer) ||
            { echo "model $model gave no answer to image $n" >&2; cat "$tmp/log"; exit 1; }
        echo "$model $said" >>"$tmp/said"
        echo "$model ${image%% *} $said" >>"$tmp/all"
    done
    [ $n -gt $N_SHOWN ] || draw < <(echo "$image"; cat "$tmp/said")
done <test/data/digits.txt
for model in $MODELS; do
    sort -n -k4 "$tmp/all" | awk -v m="$model" '
        $1 == m { ms[++n] = $4; right += $2 == $3 }
        END { printf "   %-14s %d of %d right   median %.2f ms   slowest %.2f ms\n",
                     m, right, n, ms[int((n + 1) / 2)], ms[n]
              exit right < n * 0.8 }' || { echo "$model is wrong too often" >&2; exit 1; }
done

title "5. $N_BURST requests from 16 connections"
curl -sS -Z --parallel-max 16 -d "@$tmp/request" -o /dev/null \
    -w '%{http_code} %{time_starttransfer} %{time_pretransfer}\n' \
    "http://127.0.0.1:$http/v2/models/digits-batch/infer#[1-$N_BURST]" 2>"$tmp/curl" |
    awk '{ code[$1]++; print ($2 - $3) * 1000 | "sort -n" }
         END { close("sort -n"); for (c in code) print c, code[c] }' >"$tmp/burst"
awk 'NF == 1 { ms[++n] = $1 }
     NF == 2 { printf "   status %s: %d\n", $1, $2 }
     NF == 2 && $1 == 200 { good = $2 }
     END { printf "   median %.2f ms   99 %% within %.2f ms\n", ms[int((n + 1) / 2)], ms[int(n * .99)]
           exit !good }' "$tmp/burst"

title "6. Stop"
kill -TERM "$daemon"
status=0
wait "$daemon" || status=$?
daemon=
[ $status = 0 ] || { cat "$tmp/log"; echo "gpuletd exited with status $status" >&2; exit 1; }
echo "everything answered, nothing left running.  Next: README.md, \"your own model\""
