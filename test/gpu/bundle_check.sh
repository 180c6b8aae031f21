#!/bin/sh
# The bundle for machines with a GPU runs, here on the fake driver.
set -u
cd "$(dirname "$0")/../.." || exit 1
b=${BUILD:-build}
out=$(mktemp -d) || exit 1
trap 'rm -rf "$out"' EXIT
ok() { if "$@" >>"$out/log" 2>&1; then echo "ok - $what"; else echo "not ok - $what"; sed 's/^/# /' "$out/log"; fi; }
results() { grep -c "$1" "$out/results.jsonl"; }
run() { LD_LIBRARY_PATH=$PWD/$b/test/gpu "$b/gpu-bundle/run.sh" "$out" "$@"; }

what='the bundle is made' && ok test/gpu/bundle.sh "$b"
what='facts and models are right on the fake driver' && ok run --part facts --part models
what='each case has its line' && ok test "$(results '"part": "models".*batch 8.*"ok": true')" = 3
before=$(wc -l <"$out/results.jsonl")
run --part facts >>"$out/log" 2>&1
what='a part that has ended is not run again' && ok test "$(wc -l <"$out/results.jsonl")" = "$before"
rm "$out/results.jsonl"
FAKE_GPU=gpus=0 run --part models >>"$out/log" 2>&1 && echo 'not ok - a part without a GPU fails'
what='without a GPU a part says why' && ok test "$(results 'CUDA_ERROR_NO_DEVICE')" -gt 0
