# The benches of run.sh, which sources this.
#
# bench-1 to bench-5, a model each: in turns with the PyTorch of this machine (bench_torch.py), and on gpu-lets
# from small to all of it.  A batch is begun again if its time was up.  bench-kernels: each kernel of ours alone.
#
# BENCH="MODEL ..." and BATCHES="1 8 ...": others than these.  KERNEL_ROWS=32.  BENCH_ARGS: for the program.  TURNS=7.  PYTHON=python3.
read -ra bench_models <<<"${BENCH:-resnet50 mobilenet_v2 vgg19 bert-base gpt2-small}"
read -ra bench_batches <<<"${BATCHES:-1 8 32 128}"
read -ra bench_args <<<"${BENCH_ARGS:-}"
bench_parts='bench-1 bench-2 bench-3 bench-4 bench-5 bench-kernels'
bench_small=8 # the largest batch of which there are sizes, and which PyTorch compiles
python=${PYTHON:-python3}

# What a turn is about: model, batch.
bench_ways() {
    printf "$1, batch $2, %s\n" roofline graphs eager served unfused segments 'torch eager' 'torch graphs'
    [ "$2" -gt $bench_small ] || echo "$1, batch $2, torch compile"
}
bench_cases() {
    local model=${bench_models[$1 - 1]-} b
    [ -n "$model" ] || return 0
    for b in "${bench_batches[@]}"; do
        bench_ways "$model" "$b"
        [ "$b" -gt $bench_small ] || echo "$model, batch $b, by size"
    done
}

# PyTorch finds its own libraries: ours, or those of another version, are not for it.
without_ours() {
    local before=${LD_LIBRARY_PATH%%"$here/lib"*}
    LD_LIBRARY_PATH=${before%:} "$@"
}
bench_turns() {
    local model=$1 batch=$2 ours=(env LD_LIBRARY_PATH="$LD_LIBRARY_PATH" "$here/bench" "${bench_args[@]}" "$here/models/$1" "$2")
    export TORCHINDUCTOR_CACHE_DIR="$out/inductor"
    if command -v "$python" >/dev/null; then
        without_ours timed "$python" "$here/bench_torch.py" --turns "${TURNS:-7}" "$model" "$batch" -- "${ours[@]}"
    else
        yes '' | head -n "${TURNS:-7}" | timed "${ours[@]}" | grep '^{' && bench_ways "$model" "$batch" |
            sed -n 's/.* torch .*/{"case": "&", "ok": true, "text": "there is no Python"}/p'
    fi
}
bench_part() {
    local model=${bench_models[$1 - 1]-} b
    [ -n "$model" ] || return 0
    [ ! -e "$here/models/$model/model.fill" ] || "$here/fill" "$here/models/$model"
    for b in "${bench_batches[@]}"; do
        [ -z "$(comm -12 <(bench_ways "$model" "$b" | sort) <(left "bench-$1"))" ] || bench_turns "$model" "$b"
        left "bench-$1" | grep -qxF "$model, batch $b, by size" || continue
        timed "$here/bench" --sizes "${bench_args[@]}" "$here/models/$model" "$b"
    done
    rm -f "$here/models/$model/model.weights"
}
part_bench-kernels() {
    timed "$here/bench" --kernels "${bench_args[@]}" "${KERNEL_ROWS:-32}"
    ended bench-kernels $?
}
for n in 1 2 3 4 5; do eval "part_bench-$n() { bench_part $n; }"; done
