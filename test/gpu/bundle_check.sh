#!/bin/bash
# The bundle for machines with a GPU runs, part by part, here on the fake driver.
set -u
cd "$(dirname "$0")/../.." || exit 1
b=${BUILD:-build}
out=$(mktemp -d) || exit 1
trap 'rm -rf "$out"' EXIT
ok() { if "$@" >>"$out/log" 2>&1; then echo "ok - $what"; else echo "not ok - $what"; tail -4 "$out/log" | sed 's/^/# /'; fi; }
no() { ! "$@"; }
results() { grep -c "$1" "$out/results.jsonl"; }
run() { LD_LIBRARY_PATH=$PWD/$b/test/gpu PATH=$out/bin:$PATH LOAD=2 PORT=18100 "$b/gpu-bundle/run.sh" "$out" "$@"; }

# What the tool would do: the program, and, of one case, what it says when it finds something.
mkdir "$out/bin"
cat >"$out/bin/compute-sanitizer" <<'TOOL'
#!/bin/sh
while [ "${1#--}" != "$1" ]; do shift 2; done
"$@" | awk '/ok - Softmax over axis 0 on cuda$/ { print "========= Invalid __global__ read of size 4 bytes" } { print; fflush() }'
echo '========= ERROR SUMMARY: 0 errors'
TOOL
# A daemon of MPS: a file that the fake driver takes for its socket.
cat >"$out/bin/nvidia-cuda-mps-control" <<'TOOL'
#!/bin/sh
if [ "${1-}" = -d ]; then touch "$CUDA_MPS_PIPE_DIRECTORY/control"; else rm "$CUDA_MPS_PIPE_DIRECTORY/control"; fi
TOOL
chmod +x "$out/bin"/*

what='the bundle is made' && ok test/gpu/bundle.sh "$b" shufflenet_v2 speech warp
what='of weights it has only how to make them' && ok test "$(du -sk "$b/gpu-bundle/models" | cut -f1)" -lt 2000
what='--first is right on the fake driver' && ok run --first
what='facts have their lines' && ok test "$(results '"part": "facts".*"case": "(end)", "ok": true')" = 1
fact() { what="$1" && ok test "$(results "\"part\": \"facts\", \"case\": \"$2\", \"ok\": true, \"text\": \"$3")" -gt 0; }
fact 'how the SMs can be grouped is a fact' 'green contexts: smallest groups of SMs' '16 groups of 8 SMs, 4 left'
fact 'two green contexts are found disjoint' 'green contexts: two green contexts have no SM in common' '0'
fact 'a graph is found in the partition that it was made for' 'graphs: a graph keeps its partition.*' '8 of its SMs, 0 others'
fact 'launching is timed by the number of kernels' "graphs: 1000 kernels as a graph: the host's part" '.*"value": [0-9.e]*, "unit": "us"'
fact 'bandwidth has its unit' 'links: copy to the device, pinned memory' '.*"unit": "GB/s"'
fact 'which priorities streams can have is a fact' 'streams: priorities of streams' '-5 to 0'
fact 'copies are timed on one stream and on two' 'streams: a run and its copy of 256 KiB, among others, on two streams' '.*"unit": "us"'
fact 'and compared' 'streams: the smallest copy that is worth another stream' '[0-9n]'
fact 'what a partition takes is asked in each mode' 'shared: a partition of one granule: memory' '.*"unit": "MiB"'
fact 'a daemon of MPS is started for it' 'mps: a daemon can be started' ''
fact 'a cap of SMs is read back' 'capped contexts: a context with a cap of 33 SMs' '34 SMs'
fact 'a change of partitions is timed in each mode' 'mps: a re-cut: all of it' '.*"unit": "us"'
before=$(results '"part": "facts"')
run --part facts >>"$out/log" 2>&1
what='a part that has ended is not run again' && ok test "$(results '"part": "facts"')" = "$before"

what='a part whose time is up is not right' && ok no env BUDGET=0 LD_LIBRARY_PATH="$PWD/$b/test/gpu" "$b/gpu-bundle/run.sh" "$out" --part models
what='and its cases are named as not run' && ok test "$(results '"case": "shufflenet_v2 on cuda, batch [18]", "ok": null')" = 2
what='it goes on where it stopped' && ok run --part models
what='a large model is right with weights made there' && ok test "$(results '"case": "shufflenet_v2 on cuda, batch [18]", "ok": true')" = 2
what='each case has been run once' && ok test "$(results '"part": "models".*"ok": true')" = 26
what='half precisions are compared, too' && ok test "$(results '"case": "shufflenet_v2 on cuda, batch 8, [bf]*p*f*16", "ok": true')" = 2
what='operators are right' && ok env ONLY=Softmax bash -c "$(declare -f run); out=$out b=$b; run --part ops"
what='each operator case has its line' && ok test "$(results '"part": "ops".*Softmax.*"ok": true')" -gt 3
what='operators are right without libraries' && ok env ONLY=MatMul bash -c "$(declare -f run); out=$out b=$b; run --part plain"
what='the daemon loses no request' && ok run --part http
what='what the sanitizer finds is a failure' && ok no env ONLY=Softmax bash -c "$(declare -f run); out=$out b=$b; run --part sanitize"
what='of the case in which it was found' && ok test "$(results '"part": "sanitize".*"ok": false, "text": "========= Invalid')" = 1
what='the others pass' && ok test "$(results '"part": "sanitize".*Softmax.*"ok": true')" -gt 2
what='what is left is listed by part' && ok test "$(ONLY=Sigmoid run --left | grep -c '^part ops: .*Sigmoid')" -gt 0

test/gpu/results.py "$out/results.jsonl" >"$out/page"
what='the page has the figures' && ok grep -q '^| shufflenet_v2 on cuda, batch 8 | output' "$out/page"
what='and what was wrong' && ok grep -q '^- sanitize, .*Invalid __global__ read' "$out/page"
what='and when, where and how many' && ok grep -q "$(date -u +%Y)-.*$(cat "$b/gpu-bundle/commit"), fake GPU, CUDA 13.0, driver .*, green: 26 right | \`run.sh OUT --part models" "$out/page"

rm "$out/results.jsonl"
what='a part without a GPU fails' && ok no env FAKE_GPU=gpus=0 LD_LIBRARY_PATH="$PWD/$b/test/gpu" "$b/gpu-bundle/run.sh" "$out" --part models
what='and says why' && ok test "$(results 'CUDA_ERROR_NO_DEVICE')" -gt 0
