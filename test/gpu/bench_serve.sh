# The benches of the whole daemon, for run.sh, which sources this behind bench.sh.
#
# bench-serve-2, -4 and -8: so many models side by side, each with its SLO: what `gpuletctl bench --search` finds
# all of them 99 % in time at, one at a time on the whole device, all at once without partitions, in equal
# parts, and as the planner cuts.  bench-modes: two of them in each partition mode, and what one that asks for too
# much does to the other one's 99th percentile.  bench-alone: one model, beside what the engine does without a
# daemon.  profile: what a daemon measures of all models, kept as OUT/profile.json, from which
# test/plan/convert_saved.py makes a file of test/data/plan.  Models stay in OUT/serve-*, which may be removed.
#
# SERVE="MODEL=RPS@SLO_MS ...": others than these; the rates are where the search begins.  SERVE_S=8: seconds of
# a step of it, of which SERVE_WARMUP=2 do not count.  SETTLE=20: seconds for the daemon to measure, when models
# are new.  IN_FLIGHT=4000.  ABUSE=6000: requests a second of the second model, in bench-modes.
bench_parts="$bench_parts bench-serve-2 bench-serve-4 bench-serve-8 bench-modes bench-alone profile"
read -ra serve_models <<<"${SERVE:-resnet50=200@25 bert-base=200@25 vgg19=200@40 mobilenet_v2=200@20 efficientnet_b0=100@25
    squeezenet=100@20 shufflenet_v2=100@20 speech=100@30}"
serve_ways=('one at a time' 'all at once' 'equal parts' 'the cut of the planner')
serve_policies=(timeshare all-at-once static-equal gpuletd)
serve_modes='green mps shared'
serve_port=${PORT:-18000}
serve_pid='' said=''

serve_cases() {
    local m way
    case $1 in
    serve-*) printf "${1#serve-} models, %s\n" "${serve_ways[@]}" ;;
    modes) for m in $serve_modes; do printf "$m, %s\n" 'two models' 'the first alone' 'beside one that asks for too much'; done ;;
    alone) for m in "${serve_models[@]:0:2}"; do
            echo "${m%%=*}, within its SLO"
            printf "${m%%=*}, batch 32, %s\n" roofline graphs eager served unfused segments
        done ;;
    profile) printf '%s\n' 'what is measured is kept' 'it can be planned with' 'it can be replayed' ;;
    esac | grep -F -- "$only"
}

# ---- a daemon
# Mode, policy, state folder.  Its end is serve_stop's.
serve_start() {
    serve_dir=$(mktemp -d)
    printf '[http]\nlisten = 127.0.0.1:%s\n[admin]\nlisten = 127.0.0.1:%s\nsocket = %s/admin.sock\n[state]\ndirectory = %s\n[device]\nbackend = cuda\npartition-mode = %s\n[plan]\npolicy = %s\n[limits]\nhost-bytes = 6G\n' \
        "$serve_port" $((serve_port + 1)) "$serve_dir" "$3" "$1" "$2" >"$serve_dir/conf"
    "$here/gpuletd" --config "$serve_dir/conf" >"$serve_dir/log" 2>&1 &
    serve_pid=$!
    until serve_ready; do
        if ! kill -0 $serve_pid 2>/dev/null; then
            said=$(tail -n 1 "$serve_dir/log")
            return 1
        fi
        [ "$(seconds_left)" -gt 0 ] || return 124
        sleep 0.1
    done
}
serve_ready() {
    local status
    { exec 3<>"/dev/tcp/127.0.0.1/$serve_port"; } 2>/dev/null || return 1
    printf 'GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
    read -r -t 5 _ status _ <&3
    exec 3>&-
    [ "$status" = 200 ]
}
serve_stop() {
    local i
    [ -n "$serve_pid" ] || return 0
    kill -TERM $serve_pid 2>/dev/null
    for ((i = 0; i < 300; i++)); do kill -0 $serve_pid 2>/dev/null && sleep 0.1 || break; done
    kill -KILL $serve_pid 2>/dev/null
    wait $serve_pid 2>/dev/null
    cat "$serve_dir/log" >>"$out/serve.log"
    rm -rf "$serve_dir"
    serve_pid=
}
serve_ctl() { timed "$here/gpuletctl" --server "unix:$serve_dir/admin.sock" "$@"; }
# Models that the state folder does not have yet; MODEL=RPS@SLO_MS each.
serve_register() {
    local m name rest more new=
    for m; do
        name=${m%%=*} rest=${m#*=}
        [ ! -e "$serve_state/models/$name" ] || continue
        more=()
        if [ -e "$here/models/$name/model.fill" ]; then
            "$here/fill" "$here/models/$name"
            more=(--file "$here/models/$name/model.weights")
        fi
        said=$(serve_ctl register "$name" "$here/models/$name/model.onnx" "${more[@]}" --slo-ms "${rest#*@}" --rate "${rest%@*}" \
            --max-batch 32 --precision fp16 2>&1) || return
        rm -f "$here/models/$name/model.weights"
        new=yes
    done
    [ -z "$new" ] || timed sleep "${SETTLE:-20}"
}

# Of the admin port: a path.
serve_get() {
    printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$1" >&3
    timed sed '1,/^\r$/d' <&3
} 3<>"/dev/tcp/127.0.0.1/$((serve_port + 1))"

# ---- what is measured of it
serve_bench() {
    timed "$here/gpuletctl" bench --to "http://127.0.0.1:$serve_port" --json --duration "${SERVE_S:-8}" --warmup "${SERVE_WARMUP:-2}" \
        --in-flight "${IN_FLIGHT:-4000}" "$@" 2>"$serve_dir/bench.err"
}
# The number behind a key; of the model whose name comes before it, if one is given.
number() {
    awk -F'[:,]' -v key="\"$1\"" -v model="\"${2-}\"" '{ gsub(/ /, "") }
        $1 == "\"model\"" { here = $2 }
        $1 == key && (model == "\"\"" || here == model) { value = $2 }
        END { if (value == "") exit 1; print value }'
}
# Case, value, unit, text, more members.
serve_line() { echo "{\"case\": \"$1\", \"ok\": true, \"value\": $2, \"unit\": \"$3\"${5:+, $5}, \"text\": \"$4\"}"; }
# Case, and why there is no number; where that is a failure of ours: wrong.
serve_none() {
    [ "$(seconds_left)" -gt 0 ] || return 124
    echo "{\"case\": \"$1\", \"ok\": $([ "${3-}" = wrong ] && echo false || echo true), \"text\": \"$(tr -d '"\\\n' <<<"$2" | cut -c 1-300)\"}"
}
serve_search() {
    local case=$1 json rps r
    shift
    json=$(serve_bench --search "$@")
    r=$?
    rps=$(number capacity_rps <<<"$json") || { serve_none "$case" "$(tail -n 1 "$serve_dir/bench.err")"; return; }
    serve_line "$case" "$rps" requests/s "$(printf %.1f "$rps") requests/s in all, 99 % of each model in time$([ $r = 0 ] || echo '; void: this machine sent them too late')"
}

# ---- the parts
# So many models: a daemon for each way.
serve_part_serve() {
    local i case mode
    serve_state=$out/serve-$1
    for i in 3 0 1 2; do # the planner first: its daemon measures the most
        case="$1 models, ${serve_ways[$i]}"
        left "bench-serve-$1" | grep -qxF "$case" || continue
        mode=auto
        [ "${serve_policies[$i]}" != all-at-once ] || mode=shared # elsewhere the runs of a gpu-let follow each other
        if serve_start $mode "${serve_policies[$i]}" "$serve_state" && serve_register "${serve_models[@]:0:$1}"; then
            serve_search "$case" "${serve_models[@]:0:$1}"
        else
            serve_none "$case" "$said" "$([ "${serve_policies[$i]}" != gpuletd ] || echo wrong)"
        fi
        serve_stop
    done
}
# The first of two models, asked as often as it was said to be: in ms.
serve_p99() {
    local name=${serve_models[0]%%=*}
    shift
    serve_bench "$@" | number p99_ms "$name"
}
serve_mode() {
    local first=${serve_models[0]} second=${serve_models[1]} alone beside
    serve_search "$1, two models" "$first" "$second"
    if alone=$(serve_p99 "$1" "$first"); then
        serve_line "$1, the first alone" "$alone" ms "99 % of ${first%%=*} within $alone ms, asked as often as was said"
        beside=$(serve_p99 "$1" "$first" "${second%%=*}=${ABUSE:-6000}@${second#*@}") &&
            serve_line "$1, beside one that asks for too much" "$beside" ms \
                "99 % of ${first%%=*} within $beside ms beside ${ABUSE:-6000} requests/s for ${second%%=*}; alone $alone ms"
    fi
}
serve_part_modes() {
    local m case
    for m in $serve_modes; do
        left bench-modes | grep -q "^$m, " || continue
        serve_state=$out/serve-modes
        if { [ $m != mps ] || mps_start; } && serve_start $m gpuletd "$serve_state" && serve_register "${serve_models[@]:0:2}"; then
            serve_mode $m
        else
            left bench-modes | grep "^$m, " | while IFS= read -r case; do serve_none "$case" "$said"; done
        fi
        serve_stop
        [ $m != mps ] || mps_stop
    done
}
serve_part_alone() {
    local m name
    for m in "${serve_models[@]:0:2}"; do
        name=${m%%=*} serve_state=$out/serve-$name
        if left bench-alone | grep -qxF "$name, within its SLO"; then
            if serve_start auto gpuletd "$serve_state" && serve_register "$m"; then
                serve_search "$name, within its SLO" "$m"
            else
                serve_none "$name, within its SLO" "$said" wrong
            fi
            serve_stop
        fi
        left bench-alone | grep -q "^$name, batch 32" || continue
        [ ! -e "$here/models/$name/model.fill" ] || "$here/fill" "$here/models/$name"
        yes '' | head -n "${TURNS:-7}" | timed "$here/bench" "${bench_args[@]}" "$here/models/$name" 32 | grep '^{'
        rm -f "$here/models/$name/model.weights"
    done
}
# All models in one daemon until what it knows of neighbours and sizes does not grow any more.
serve_learns() {
    local known=0 was=-1
    while [ "$known" != "$was" ] && [ "$(seconds_left)" -gt 60 ]; do
        timed sleep "${SETTLE:-20}"
        was=$known
        known=$(serve_get /metrics | awk '/^gpuletd_model_profile_points_total/ { n += $2 } END { print n }')
    done
}
serve_check() { # case, what was learnt, command...
    local case=$1 text=$2 r
    shift 2
    said=$("$@" 2>&1)
    r=$?
    # 3: valid, but not everything is met: the models and SLOs are what was asked for, not what suits this device.
    if [ $r = 0 ] || [ $r = 3 ]; then
        echo "{\"case\": \"$case\", \"ok\": true, \"text\": \"$text\"}"
    else
        serve_none "$case" "$said" wrong
    fi
}
serve_part_profile() {
    local file=$out/profile.json
    serve_state=$out/serve-8
    if serve_start auto gpuletd "$serve_state" && serve_register "${serve_models[@]}" && serve_learns && serve_get /v1/problem >"$file"; then
        serve_check 'what is measured is kept' 'OUT/profile.json' grep -q '"version"' "$file"
        serve_check 'it can be planned with' 'by gpuletctl plan' timed "$here/gpuletctl" plan "$file"
        serve_check 'it can be replayed' 'by gpuletctl simulate' timed "$here/gpuletctl" simulate "$file" --duration 10
    else
        serve_none 'what is measured is kept' "$said" wrong
    fi
    serve_stop
}
serve_part() {
    trap 'serve_stop; mps_stop' EXIT # of the subshell that a part is
    "$@"
}
for n in 2 4 8; do eval "part_bench-serve-$n() { serve_part serve_part_serve $n; }"; done
part_bench-modes() { serve_part serve_part_modes; }
part_bench-alone() { serve_part serve_part_alone; }
part_profile() { serve_part serve_part_profile; }
