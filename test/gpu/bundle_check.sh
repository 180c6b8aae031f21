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
# Ten free ports in a row, below those that the kernel gives to clients: others may check at the same time.
PORT=$(python3 - <<'PYTHON'
import os
import random
import socket

def free(port):
    with socket.socket() as s:
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True

tries = random.Random(os.getpid()).choices(range(10000, 32000, 10), k=1000)
print(next(first for first in tries if all(map(free, range(first, first + 10)))))
PYTHON
) || exit 1
export PORT
run() { FAKE_GPU_STRICT=NVML LD_LIBRARY_PATH=$PWD/$b/test/gpu PATH=$out/bin:$PATH LOAD=2 "$b/gpu-bundle/run.sh" "$out" "$@"; }

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
what='it begins with the steps of the ladder' && ok test "$(results '"part": "ladder".*"ok": true')" = "$("$b/test/gpu/ladder" --list | wc -l)"
what='each of which says what it did' && ok test "$(results '"case": "two launches as a graph", "ok": true, "text": "the plug-in; its devices;.*a slot, with graphs; run; ')" = 1
what='facts have their lines' && ok test "$(results '"part": "facts".*"case": "(end)", "ok": true')" = 1
fact() { what="$1" && ok test "$(results "\"part\": \"facts\", \"case\": \"$2\", \"ok\": true, \"text\": \"$3")" -gt 0; }
fact 'how the SMs can be grouped is a fact' 'green contexts: smallest groups of SMs' '16 groups of 8 SMs, 4 left'
fact 'two green contexts are found disjoint' 'green contexts: two green contexts have no SM in common' '0'
fact 'what a device says of itself in a green context is a fact' "green contexts: a green context: SMs by the device's attribute, by its own" '132, 8'
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
run --part models >"$out/models.log" 2>&1 & # takes minutes: beside what follows
models=$!
what='operators are right' && ok env ONLY=Softmax bash -c "$(declare -f run); out=$out b=$b; run --part ops"
what='each operator case has its line' && ok test "$(results '"part": "ops".*Softmax.*"ok": true')" -gt 3
what='operators are right without libraries' && ok env ONLY=MatMul bash -c "$(declare -f run); out=$out b=$b; run --part plain"
what='the daemon is right in each mode' && ok run --part http
what='a part goes on where it stopped' && ok wait $models
what='a large model is right with weights made there' && ok test "$(results '"case": "shufflenet_v2 on cuda, batch [18]", "ok": true')" = 2
what='each case has been run once' && ok test "$(results '"part": "models".*"ok": true')" = 30
what='half precisions are compared, too' && ok test "$(results '"case": "shufflenet_v2 on cuda, batch 8, [bf]*p*f*16", "ok": true')" = 2
for mode in auto green shared mps; do
    in="\"gpu\": \"fake GPU.*, ${mode/auto/green}\", \"part\": \"http\", \"case\": \"$mode: .*\", \"ok\": true"
    what="$mode: every step of it" && ok test "$(results "$in")" = 8
    what="$mode: it is the mode that was asked for" && ok test "$(results "$in, \"text\": \"gpu0: .* units in granules of [0-9]*, ${mode/auto/green}, ")" = 1
    what="$mode: while it is cut anew both models are answered" && ok test "$(results "$in, \"text\": \"[1-9][0-9]* sent, .* 0 failed, 0 wrong, 0 lost\"")" = 1
done
apart() { what="$1" && ok test "$(results "\"case\": \"$2: they have.*\"ok\": true, \"text\": \"$3\"")" = 1; }
apart 'green: two models have SMs of their own' green 'gpu-let [0-9]*: 32 units, granules 0-3 of gpu0: one; gpu-let [0-9]*: 32 units, granules 4-7 of gpu0: two'
apart 'mps: two models have a cap each' mps 'gpu-let [0-9]*: 32 units, granules 0-15 of gpu0: one; gpu-let [0-9]*: 32 units, granules 16-31 of gpu0: two'
apart 'shared: two models have all SMs' shared 'gpu-let [0-9]*: 132 units, granules 0 of gpu0: one, two'
before=$(results '"part": "http"')
what='a part of which a mode cannot be had is right' && ok run --part http
what='and no mode is run again' && ok test "$(results '"part": "http"')" = "$before"
what='what the sanitizer finds is a failure' && ok no env ONLY=Softmax bash -c "$(declare -f run); out=$out b=$b; run --part sanitize"
what='of the case in which it was found' && ok test "$(results '"part": "sanitize".*"ok": false, "text": "========= Invalid')" = 1
what='the others pass' && ok test "$(results '"part": "sanitize".*Softmax.*"ok": true')" -gt 2
# A small model, and PyTorch on the host if it is there.
benches() { env BENCH=digits-batch BATCHES='1 9' BENCH_ARGS='-m 64 -t 2' TURNS=3 PYTHON="$PWD/.venv-test/bin/python" \
    bash -c "$(declare -f run); out=$out b=$b; run $*"; }
bench_line() { results "\"part\": \"bench-1\", \"case\": \"digits-batch, $1\", \"ok\": true.*$2"; }
turns='"turns": \[[0-9.]*, [0-9.]*, [0-9.]*\]'
what='a model is timed in turns' && ok benches --part bench-1
what='with its graphs' && ok test "$(bench_line 'batch 9, graphs' "$turns")" = 1
what='without them' && ok test "$(bench_line 'batch 9, eager' "$turns")" = 1
what='without what passes fuse' && ok test "$(bench_line 'batch 9, unfused' "$turns")" = 1
what='and with copies' && ok test "$(bench_line 'batch 9, served' "$turns")" = 1
what='what is counted of it grows with the batch' && ok test \
    "$(bench_line 'batch 1, roofline' '"matrix_gflop": 0.00107648,')/$(bench_line 'batch 9, roofline' '"matrix_gflop": 0.00968832,')" = 1/1
what='and on gpu-lets of each size' && ok test "$(bench_line 'batch 1, by size' '"sizes": \[\[8, [0-9.]*\], \[16, .*\[132, ')" = 1
what='what PyTorch does not do has its reason' && ok test "$(bench_line 'batch 1, torch compile' '"text": "[A-Za-z]*Error: ')" = 1
# All at the same time: models, Python, what else run.sh is told.
all_benches() { env BENCH="$1" BATCHES='1 9' BENCH_ARGS='-m 64 -t 2' TURNS=3 PYTHON="$2" \
    bash -c "$(declare -f run); out=$out/all b=$b; run ${*:3}"; }
all_lines() { grep -c "\"part\": \"bench-$1\", \"case\": \"$2, batch [19], $3" "$out/all/results.jsonl"; }
mkdir "$out/all"
what='one that has no model does not keep the others' && ok no all_benches 'digits-batch none' "$PWD/.venv-test/bin/python" --part bench-all
what='which have their lines as parts of their own have' && ok test "$(all_lines 1 digits-batch '.*", "ok": true')" = "$(bench_line 'batch [19], .*' '')"
what='each its own' && ok test "$(all_lines 2 none 'graphs", "ok": false, "text": ".*No such file')/$(all_lines 1 none '.*')" = 2/0
rm -rf "$out/all"/*
what='without Python, too' && ok all_benches 'digits-batch digits-tiny' none --part bench-all
what='where each model is in its part' && ok test "$(all_lines 1 digits-batch "graphs\", \"ok\": true.*$turns")/$(all_lines 2 digits-tiny "graphs\", \"ok\": true.*$turns")" = 2/2
what='and nothing is left' && ok test -z "$(all_benches 'digits-batch digits-tiny' none --left | grep '^part bench-[1-5]: ')"
at_gate() { # is it set up, and does it wait?
    exec {held}>"$out/gate" && flock "$held"
    : >"$out/gate.ready"
    echo | GATE=$out/gate LD_LIBRARY_PATH=$PWD/$b/test/gpu GPULET_PLUGIN_DIR=$PWD/$b "$b/test/gpu/bench" -m 64 -t 1 "$b/gpu-bundle/models/digits" 1 \
        >"$out/gated" {held}>&- &
    for _ in {1..600}; do grep -qx 'digits, batch 1' "$out/gate.ready" && break || sleep 0.1; done
    ! grep -v '^ready$' "$out/gated"
    waits=$?
    exec {held}>&-
    wait $! && return $waits
}
what='who is set up waits at the gate' && ok at_gate
what='and measures when it is let in' && ok grep -q '^{"case": "digits, batch 1, graphs", "ok": true' "$out/gated"
lines=$(results '"part": "bench-1"')
what='a bench that was run is not run again' && ok benches --part bench-1 && ok test "$(results '"part": "bench-1"')" = "$lines"
"$b/gpu-bundle/fill" "$b/gpu-bundle/models/shufflenet_v2"
what='what a network of known size takes is counted' && ok bash -c \
    "'$b/gpu-bundle/bench' --count '$b/gpu-bundle/models/shufflenet_v2' 1 | grep -q '\"matrix_gflop\": 0.289816'"
for known in resnet50=4089184256 mobilenet_v2=300774272 vgg19=19632062464 bert-base=11174215680 gpt2-small=7981547520; do
    .venv-test/bin/python -c 'import torch' 2>/dev/null || continue
    what="PyTorch's ${known%=*} has the same products" && ok bash -c \
        ".venv-test/bin/python test/gpu/bench_torch.py --count '${known%=*}' | grep -q '\"multiply_adds\": ${known#*=},'"
done

serves() { env SERVE='digits-batch=20@500 digits=20@500' SERVE_S=1 SERVE_WARMUP=0.2 SETTLE=1 ABUSE=300 TURNS=1 BENCH_ARGS='-m 64 -t 1' \
    ONLY="$2" bash -c "$(declare -f run); out=$out b=$b; run --part $1"; }
number() { results "\"part\": \"$1\", \"case\": \"$2\", \"ok\": true, \"value\": [0-9.]*[1-9]"; }
what='models side by side are searched for their rate' && ok serves bench-serve-2 'the planner'
what='which is found' && ok test "$(number bench-serve-2 '2 models, the cut of the planner')" = 1
what='in another way too' && ok serves bench-serve-2 'one at a time'
what='which has its own' && ok test "$(number bench-serve-2 '2 models, one at a time')" = 1
what='modes are compared' && ok serves bench-modes 'mps, '
what='each as what a neighbour does' && ok test "$(number bench-modes 'mps, the first alone')/$(number bench-modes 'mps, beside one that asks for too much')" = 1/1
what='a model alone is beside its engine' && ok serves bench-alone 'digits-batch'
what='both of which have a number' && ok test "$(number bench-alone 'digits-batch, within its SLO')/$(results '"part": "bench-alone".*batch 32, graphs", "ok": true')" = 1/1
what='what a daemon measures is kept' && ok serves profile ''
what='and can be converted and planned with' && ok bash -c "test/plan/convert_saved.py '$out/profile.json' h200 2 >'$out/h200.json' && '$b/gpuletctl' plan '$out/h200.json' | grep -q '^h200-'"
what='kernels are beside their floors' && ok env BENCH_ARGS='-m 64 -t 1 -n 2' KERNEL_ROWS=1 bash -c "$(declare -f run); out=$out b=$b; run --part bench-kernels"
for precision in fp32 fp16; do
    what="each of them in $precision" && ok test "$(results "\"part\": \"bench-kernels\".*, $precision\", \"ok\": true, \"value\": [0-9.]*, \"unit\": \"us\", \"floor_us\": [0-9]")" = 12
done
what='attention as exporters write it is one step' && ok test "$(results '"part": "bench-kernels".*attention, fp16".*"steps": 1')" = 1
what='as is what makes floats of a photo' && ok test "$(results '"part": "bench-kernels".*pixels, fp[13][62]".*"steps": 1')" = 2
with_torch() {
    .venv-test/bin/python test/gpu/bench_torch.py --device cpu --turns 2 --turn-ms 1 mobilenet_v2 1 -- env LD_LIBRARY_PATH="$PWD/$b/test/gpu" \
        GPULET_PLUGIN_DIR="$PWD/$b" "$b/test/gpu/bench" -m 64 -t 1 "$b/gpu-bundle/models/digits" 1 >"$out/torch"
}
if .venv-test/bin/python -c 'import torch' 2>/dev/null; then
    what='PyTorch runs in turns with us' && ok with_torch
    what='and its turns are told' && ok grep -q '^{"case": "mobilenet_v2, batch 1, torch eager", "ok": true.*"turns": \[[0-9.]*, [0-9.]*\]' "$out/torch"
    what='as are ours' && ok grep -q '^{"case": "digits, batch 1, graphs", "ok": true.*"turns": \[[0-9.]*, [0-9.]*\]' "$out/torch"
fi

what='what is left is listed by part' && ok test "$(ONLY=Sigmoid run --left | grep -c '^part ops: .*Sigmoid')" -gt 0

test/gpu/results.py "$out/results.jsonl" >"$out/page"
what='the page has the figures' && ok grep -Eq '^\| shufflenet_v2 \| [0-9.e-]+ \| [0-9.e-]+ \|' "$out/page"
what='a bench has its table' && ok grep -Eq '^\| digits-batch \| 9 \| [0-9.e-]+ \(.*%' "$out/page"
what='and its sizes' && ok grep -Eq '^\| digits-batch \| 1 \| [0-9.e-]+ \| .* \([0-9]+ SMs\) \|$' "$out/page"
what='models side by side have theirs' && ok grep -q "^The planner's cut over the best of the 1 others: [0-9]" "$out/page"
what='and the daemon beside its engine' && ok grep -q '^digits-batch, within its SLO: [0-9]* % of what the engine does at batch 32' "$out/page"
what='and what was wrong' && ok grep -q '^- sanitize, .*Invalid __global__ read' "$out/page"
what='and when, where and how many' && ok grep -q "$(date -u +%Y)-.*$(cat "$b/gpu-bundle/commit"), fake GPU, green: 30 right | \`run.sh OUT --part models" "$out/page"
what='and of each mode' && ok grep -q '^| the daemon, `partition-mode = shared`.*, shared: 8 right |' "$out/page"
what='of one that cannot be had why not' && ok grep -q '^| the daemon, `partition-mode = mig`.*not validated.*: cannot be had: .*not a MIG instance' "$out/page"

mkdir -p "$out/kept/docs" "$out/kept/test/gpu" && cp test/gpu/results.py "$out/kept/test/gpu"
kept() { grep -c "$1" "$out/kept/docs/gpu-results/fake.jsonl"; }
keeps() { "$out/kept/test/gpu/results.py" --keep fake "$@"; }
what='what a run found is kept' && ok keeps "$out/results.jsonl"
what='of operators that are right one line' && ok test "$(kept '"part": "ops"')/$(kept '"part": "ops".*"right": [1-9]')" = 1/1
what='of those that are not each' && ok test "$(kept '"part": "sanitize".*"ok": false')/$(kept '"part": "sanitize"')" = 1/2
what='and nothing of what was not run' && ok test "$(kept '"text": "not run"')" = 0
what='its page is that of the run' && ok diff <(grep '^|' "$out/page" | grep -v 'not validated') <(grep '^|' "$out/kept/docs/gpu-results.md" | grep -v 'not validated')
cp "$out/kept/docs/gpu-results/fake.jsonl" "$out/kept/before"
grep '"part": "models", "case": "digits on cuda, batch 1"' "$out/results.jsonl" | sed 's/"date": "[^"]*"/"date": "2999-01-01"/' >"$out/later"
what='a later run of one case leaves the others' && ok keeps "$out/later"
what='and takes its place' && ok test "$(diff "$out/kept/before" "$out/kept/docs/gpu-results/fake.jsonl" | grep -c '^>')/$(kept 'date": "2999')" = 1/1

# Part http on other machines: FAKE_GPU, the mode, and how it ends.
on() { rm "$out/results.jsonl"; FAKE_GPU=$1 ONLY="$2: " run --part http; }
line() { results "\"part\": \"http\", \"case\": \"$1: the daemon serves in this mode\", \"ok\": $2, \"text\": \"$3"; }
what='a machine without green contexts is not wrong' && ok on version=12040 green
what='but has its line, which says why' && ok test "$(line green null "cannot be had: .*the driver is of CUDA 12.4, 12.5 is needed")" = 1
printf '#!/bin/sh\necho "no room in /dev/shm"; exit 1\n' >"$out/bin/nvidia-cuda-mps-control"
what='nor is one where no daemon of MPS starts' && ok on gpus=1 mps
what='which has what that said' && ok test "$(line mps null 'cannot be had: nvidia-cuda-mps-control: no room in /dev/shm')" = 1
test/gpu/results.py "$out/results.jsonl" >"$out/page"
what='on the page it is not validated' && ok grep -q '^| the daemon, `partition-mode = mps`.*not validated.*no room in /dev/shm' "$out/page"
what='a device that leaves more than a granule over is right' && ok on groups_lost=1 green
what='as both halves are all of it' && ok test "$(results '"case": "green: another plan .*"ok": true, "text": ".*: 76 units, granules 7-14 .*: 56 units, granules 0-6 ')" = 1
what='a MIG instance is a mode, too' && ok on mig=1 mig
what='an error of the driver is one in every mode' && ok no env FAKE_GPU_FAIL=cuDevSmResourceSplitByCount bash -c "$(declare -f run on); out=$out b=$b; on gpus=1 green"
what='and says which' && ok test "$(line green false 'gpuletd: .*cuDevSmResourceSplitByCount: CUDA_ERROR')" = 1
what='a mode that has no time is not right' && ok no env BUDGET=0 bash -c "$(declare -f run on); out=$out b=$b; on gpus=1 green"
what='and its steps are named' && ok test "$(results '"case": "green: .*", "ok": null, "text": "not run"')" = 8

cat >"$out/bin/compute-sanitizer" <<'TOOL'
#!/bin/sh
echo '========= COMPUTE-SANITIZER'
echo '========= Error: Device not supported. Please refer to the "Supported Devices" section of the documentation'
while [ "${1#--}" != "$1" ]; do shift 2; done
exec "$@"
TOOL
rm "$out/results.jsonl"
what='where the sanitizer refuses the device nothing is wrong' && ok run --part sanitize
what='nothing is right' && ok test "$(results '"ok": true')" = 0
what='and why is said' && ok test "$(results '"case": "compute-sanitizer", "ok": null, "text": "cannot be had: .*Device not supported')" = 1

rm "$out/results.jsonl"
what='a part without a GPU fails' && ok no env FAKE_GPU=gpus=0 LD_LIBRARY_PATH="$PWD/$b/test/gpu" "$b/gpu-bundle/run.sh" "$out" --part models
what='and says why' && ok test "$(results 'CUDA_ERROR_NO_DEVICE')" -gt 0

# A driver in which the first graph's capture kills the process, and a debugger that knows where.
printf '#!/bin/sh\necho "#0  0x00007f in cuStreamBeginCapture (\\"a\\") from libcuda.so.1"; echo "#1  capture ()"\n' >"$out/bin/cuda-gdb"
chmod +x "$out/bin/cuda-gdb"
mkdir "$out/fallen"
first() { FAKE_GPU_DIE=$1 bash -c "$(declare -f run); out=$out/fallen b=$b; PATH=$out/bin:\$PATH run --first"; }
fallen() { grep -c "$1" "$out/fallen/results.jsonl"; }
what='where a step of the ladder dies --first is not right' && ok no first cuStreamBeginCapture
what='the step is named with its signal and how far it came' && ok test "$(fallen '"case": "two launches as a graph", "ok": false, "text": "the plug-in;.*; a slot, with graphs; ended by SIGSEGV"')" = 1
what='and with where it was' && ok test "$(fallen '"case": "two launches as a graph", "ok": false.*; ended by SIGSEGV; at 0  0x00007f in cuStreamBeginCapture (a) from libcuda.so.1; at 1  capture ()"')" = 1
what='steps behind it are tried' && ok test "$(fallen '"part": "ladder", "case": "a product, unmeasured, without a graph", "ok": true')" = 1
what='what needs all of them is not, by name' && ok test "$(fallen '"part": "facts", "case": "(end)", "ok": null, "text": "not run: the ladder died at .two launches captured by hand.')/$(fallen '"part": "models", "case": "digits.* on cuda, batch [18].*", "ok": null, "text": "not run: the ladder died')" = 1/12
test/gpu/results.py "$out/fallen/results.jsonl" >"$out/page"
what='the page says which died' && ok grep -q '^- ladder, two launches as a graph: .*ended by SIGSEGV; at 0 ' "$out/page"
rm "$out/fallen/results.jsonl"
what='one that dies in a library is another step' && ok no first cublasLtMatmul
what='and no other' && ok test "$(fallen '"ok": false, "text": ".*ended by SIGSEGV"')/$(fallen '"case": "a product, .*", "ok": false, "text": ".*ended by SIGSEGV"')" = 4/4

# Stands for a program that dies, and for the debugger.
mv "$b/gpu-bundle/compare" "$out/compare"
printf '#!/bin/sh\nkill -SEGV $$\n' >"$b/gpu-bundle/compare"
printf '#!/bin/sh\necho "asked: $*"\n' >"$out/bin/cuda-gdb"
chmod +x "$b/gpu-bundle/compare" "$out/bin/cuda-gdb"
what='a program that dies is not right' && ok no env ONLY=digits-tiny bash -c "$(declare -f run); out=$out b=$b; run --part models"
what='and a debugger is asked once where it was' && ok grep -cE '^asked: .*(--args .*/compare -p fp32 cuda 1 digits-tiny|/compare \./core[^ ]*)$' "$out/died.log"
mv "$out/compare" "$b/gpu-bundle/compare"
