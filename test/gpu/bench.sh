# The benches of run.sh, which sources this.
#
# bench-1 to bench-5, a model each: in turns with the PyTorch of this machine (bench_torch.py), and on gpu-lets
# from small to all of it.  A batch is begun again if its time was up.  bench-kernels: each kernel of ours alone.
# bench-all: bench-1 to bench-5, whose models and batches are all set up at the same time and then measured one
# after the other (bench_gate.c), in one part's time; it wants that many times the memory.
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
bench_sizes() { timed "$here/bench" --sizes "${bench_args[@]}" "$here/models/$1" "$2"; }
# What the device does at best, once for all that is compared with it.
bench_rates() {
    local rates
    case " ${bench_args[*]} " in *' -r '*) return ;; esac
    rates=$(timed "$here/bench" --rates "${bench_args[@]}") && bench_args+=(-r "$rates")
}
# What is left of part N: "turns" or "sizes", the model, the batch; a line each.
bench_jobs() {
    local model=${bench_models[$1 - 1]-} todo b
    [ -n "$model" ] || return 0
    todo=$(left "bench-$1")
    for b in "${bench_batches[@]}"; do
        [ -z "$(comm -12 <(bench_ways "$model" "$b" | sort) <(echo "$todo"))" ] || echo "turns $model $b"
        ! grep -qxF "$model, batch $b, by size" <<<"$todo" || echo "sizes $model $b"
    done
}
# Weights of part N's model are there while it is measured: they are large.
bench_fill() {
    local folder=$here/models/${bench_models[$1 - 1]-}
    [ ! -e "$folder/model.fill" ] || "$here/fill" "$folder"
    # What the first of them would prepare: several at a time would take it from each other.
    [ ! -e "$folder/model.onnx" ] || timed "$here/bench" --count "$folder" 1 >/dev/null
}
bench_empty() { rm -f "$here/models/${bench_models[$1 - 1]-}/model.weights"; }
bench_part() {
    local jobs what model b
    jobs=$(bench_jobs "$1")
    [ -n "$jobs" ] || return 0
    bench_rates
    bench_fill "$1"
    while read -r what model b <&3; do "bench_$what" "$model" "$b"; done 3<<<"$jobs"
    bench_empty "$1"
}

# All that is left, in the background, each with the part that it belongs to; leaves `pids`, and `names` as
# the benches say them when they are set up.  None of them has the starter's hold on the gate.
bench_start() {
    local n what model b
    export TORCHINDUCTOR_COMPILE_THREADS=${TORCHINDUCTOR_COMPILE_THREADS:-2} # for each of them
    for n in 1 2 3 4 5; do
        while read -r what model b <&3; do
            { GATE=$gate "bench_$what" "$model" "$b" 3<&- </dev/null | keep "bench-$n"; } {held}>&- &
            pids+=($!)
            names+=("$model, batch $b$([ "$what" = turns ] || echo ', by size')")
        done 3< <(bench_jobs $n)
    done
}
# One that has ended is not waited for.
bench_await() {
    local i
    for i in "${!pids[@]}"; do
        until grep -qxF "${names[$i]}" "$gate.ready" || ! kill -0 "${pids[$i]}" 2>/dev/null || [ "$(seconds_left)" = 0 ]; do
            sleep 0.1
        done
    done
    echo "part bench-all: ${#pids[@]} are set up after $((SECONDS - began)) s" >&2
}
bench_all() {
    local n gate=$out/gate held pids=() names=() began=$SECONDS
    : >"$gate.ready"
    exec {held}>"$gate"
    flock "$held"
    bench_rates
    for n in 1 2 3 4 5; do bench_fill $n {held}>&- & done
    wait
    bench_start
    bench_await
    exec {held}>&-
    wait
    for n in 1 2 3 4 5; do bench_empty $n; done
    rm -f "$gate" "$gate.ready"
}
part_bench-kernels() {
    timed "$here/bench" --kernels "${bench_args[@]}" "${KERNEL_ROWS:-32}"
    ended bench-kernels $?
}
for n in 1 2 3 4 5; do eval "part_bench-$n() { bench_part $n; }"; done
