# Part http of run.sh, which reads this: the daemon end to end, once in each partition mode.
#
# A mode has a daemon of its own, with folder, ports and log, and a fifth of the part's time at most,
# so that one that hangs leaves the others theirs.  Two models are pinned to gpu-lets without a granule
# in common, as far as the mode has several, and answer at once.  Then, under load on both, the GPU is
# cut anew by hand, given back to the policy, and two more models come.  A mode that cannot be had has
# one line that says why, neither right nor wrong, and is not tried again.
http_modes='auto green shared mps mig'
http_steps=(
    'the daemon serves in this mode'
    'two models are taken'
    'they have gpu-lets without a granule in common, where the mode has several'
    'both answer at once, each as it does alone'
    'another plan is in force under load'
    'two more models come under load'
    'no request failed and none was lost meanwhile'
    'SIGTERM drains and ends with status 0'
)

http_cases() {
    local m
    for m in $http_modes; do
        grep -q "^{\"commit\": \"$commit\".*\"part\": \"http\", \"case\": \"$m: ${http_steps[0]}\", \"ok\": null, \"text\": \"cannot be had" "$results" ||
            printf "$m: %s\n" "${http_steps[@]}"
    done
}

# Of step N: how it ended, 0 right, 124 not at all because the time was over, and what it has to say.
told() {
    case $2 in 0) echo "ok - $mode: ${http_steps[$1]}" ;; 124) return 124 ;; *) echo "not ok - $mode: ${http_steps[$1]}" ;; esac
    [ -z "$text" ] || echo "#   $text"
    return "$2"
}
step() {
    local n=$1
    shift
    text=
    [ "$(seconds_left)" -gt 0 ] || return 124
    "$@"
    told "$n" $?
}

ctl() { timed "$here/gpuletctl" --server "unix:$dir/admin.sock" "$@"; }
bench() { timed "$here/gpuletctl" bench --to "http://127.0.0.1:$port" --json --warmup 0 "$@" one=50@500 two=50@500; }
alive() { kill -0 "$pid" 2>/dev/null; }
# Of /v1/plan: a method, a body.
ask_plan() {
    local status
    {
        printf '%s /v1/plan HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %s\r\n\r\n%s' "$1" ${#2} "$2" >&3
        read -r -t "$(($(seconds_left) + 1))" _ status _ <&3
        text=$(timed tail -n 1 <&3)
    } 3<>"/dev/tcp/127.0.0.1/$((port + 1))" && [ "$status" = 200 ] && text=
}
granules() { seq -s, "$1" "$(($2 - 1))"; }
gpulet() {
    local m list='' on=$1
    shift
    for m; do list="$list${list:+, }{\"model\": \"$m\"}"; done
    echo "{\"device\": \"gpu0\", \"granules\": [$on], \"models\": [$list]}"
}
# One on some granules and two on others; where there is but one, both on that.
pin() {
    local lets
    if [ "$n_granules" -gt 1 ]; then lets="$(gpulet "$1" one), $(gpulet "$2" two)"; else lets=$(gpulet 0 one two); fi
    ask_plan PUT "{\"gpulets\": [$lets]}"
}
epoch() { ctl plan | sed -n 's/^epoch \([0-9]*\),.*/\1/p'; }
# What answers of `gpuletctl bench` add up to; 0: both models were answered, and no request failed, was
# lost or had another's answer.
counts() {
    text=$(awk -F'[:,]' '/"models": / { inside = 1 } /^}/ { inside = 0 } { gsub(/[ "]/, "", $1) }
        inside && $1 == "model" { gsub(/[ "]/, "", $2); model = $2 }
        inside { sum[$1] += $2 } inside && ($1 == "in_time" || $1 == "late") { answered[model] += $2 }
        END { printf "%d sent, %d in time, %d late, %d refused, %d failed, %d wrong, %d lost", sum["offered"], sum["in_time"],
                  sum["late"], sum["refused"], sum["failed"], sum["wrong"], sum["lost"]
              exit !(answered["one"] && answered["two"]) || sum["failed"] + sum["wrong"] + sum["lost"] }' "$@")
}

# ---- the steps
# What was asked for; of auto: nothing that is better can be had, and why says so.
is_mode() {
    case $mode$1 in
    automig | automps) ;;
    autogreen) [[ $2 = *'; not mps: '* ]] ;;
    autoshared) [[ $2 = *'; not mps: '*'; not green: '* ]] ;;
    *) [ "$mode" = "$1" ] ;;
    esac
}
serves() {
    local line why r=1
    until [ -S "$dir/admin.sock" ] && ctl status >"$dir/status" 2>/dev/null; do
        if ! alive; then
            text=$(tail -n 1 "$log")
            return 1
        fi
        [ "$(seconds_left)" -gt 0 ] || return 124
        sleep 0.1
    done
    # A device has two lines, and the last word of the first is its mode.
    while IFS= read -r line && [ -n "$line" ] && IFS= read -r why; do
        text="${text:+$text; }$line,${why# }"
        is_mode "${line##*, }" "$why"
        r=$?
        [ $r = 0 ] || return $r
    done <"$dir/status"
    # What is left over of granules, which the last one brings along, is not among the units.
    read -r n_granules device_units < <(
        sed -nE '1s/.*, ([0-9]+) units in granules of ([0-9]+),.*/\1 \2/p; 2s/.* ([0-9]+) more with the last.*/\1/p' "$dir/status" |
            awk 'NR == 1 { units = $1; each = $2 } NR == 2 { rest = $1 } END { print units / each, units + rest }')
    return $r
}
taken() {
    local m
    for m; do
        text=$(ctl register "$m" "$here/models/digits/model.onnx" 2>&1 >/dev/null) || return
        ctl infer --example "$m" >"$dir/request" && text=$(ctl infer "$m" "$dir/request" 2>&1 >/dev/null) || return
    done
}
# Two gpu-lets that serve, one model each, no granule twice, and no more units than the device has; or the one
# of a mode without partitions, with both.
apart() {
    ctl plan >"$dir/plan" || return
    text=$(awk -v n="$n_granules" -v most="$device_units" '
        $4 == "serving" && / (one|two) \(/ {
            lets++; units += $3; both += / one \(.* two \(/ || / two \(.* one \(/
            for (k = split($5, list, ","); k; k--) {
                split(list[k], ends, "-")
                for (g = ends[1]; g <= (ends[2] == "" ? ends[1] : ends[2]); g++) again += seen[$2, g]++
            }
            who = $0; sub(/^.*% +/, "", who); gsub(/ \([^)]*\)/, "", who)
            printf "%sgpu-let %s: %s units, granules %s of %s: %s", (lets > 1 ? "; " : ""), $1, $3, $5, $2, who
        }
        END { exit !(n > 1 ? lets == 2 && !both && !again && units <= most : lets == 1 && both) }' "$dir/plan")
}
cut_apart() {
    local q=$((n_granules < 4 ? 1 : n_granules / 4))
    pin "$(granules 0 $q)" "$(granules $q $((2 * q)))" && apart
}
# Pinned, and of one shape: each answer has the bits that it had alone.
at_once() {
    local r was
    bench --duration $(((${LOAD:-15} + 2) / 3)) --check >"$dir/alone.json"
    [ $? != 124 ] || return 124
    counts "$dir/alone.json"
    r=$? was=$text
    apart && text="$was; $text" && return $r
}
# In halves, and the models the other way round: no gpu-let stays.  Then as the policy likes it.
cut_anew() {
    local before half=$((n_granules / 2)) how
    before=$(epoch)
    pin "$(granules $half "$n_granules")" "$(granules 0 $half)" && [ "$(epoch)" -gt "$before" ] && apart || return
    how=$text
    ask_plan DELETE '' && text="$how; then as the policy likes it; epochs $before to $(epoch)"
}
# Goes on, in rounds, until it is told to stop: what is changed meanwhile takes as long as it takes.
load() {
    local i=0
    until [ -e "$dir/enough" ] || [ "$(seconds_left)" = 0 ] || ! alive; do
        bench --duration "${LOAD:-15}" >"$dir/load-$i.json"
        i=$((i + 1))
    done
}
drains() {
    kill -TERM "$pid"
    while alive; do
        [ "$(seconds_left)" -gt 0 ] || return 124
        sleep 0.1
    done
    wait "$pid"
}

# ---- a mode
# Leaves in `why` why this mode cannot be had on this machine; false for any other end of the daemon, as an
# error of the driver's that says nothing about that.
cannot() {
    why=$(grep -oE "partition-mode '$mode': .*|cuInit: CUDA_ERROR_MPS_.*" "$log" | tail -n 1)
    case $mode,$why in
    mps,*CUDA_ERROR_MPS_* | *CUDA_ERROR_NOT_SUPPORTED* | *CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY* | *CUDA_ERROR_INVALID_RESOURCE_*) ;;
    *, | *CUDA_ERROR*) return 1 ;;
    esac
}
cannot_be_had() {
    echo "part http, partition-mode = $mode: cannot be had: $1" >&2
    printf 'none - %s: %s\n#   cannot be had: %s\n' "$mode" "${http_steps[0]}" "$1"
}
http_end() {
    if [ -n "${pid-}" ] && alive; then
        kill -TERM "$pid"
        for i in {1..50}; do alive && sleep 0.1; done
        kill -KILL "$pid" 2>/dev/null
    fi
    wait # for load, which ends without a daemon
    mps_stop
    rm -rf "$dir"
}
http_mode() (
    mode=$1 port=$2 log=$out/daemon-$1.log dir=$(mktemp -d) pid='' n_granules=1
    until=$((SECONDS + budget / 5 < until ? SECONDS + budget / 5 : until))
    trap http_end EXIT
    if [ "$mode" = mps ] && ! mps_start; then
        cannot_be_had "$said"
        exit
    fi
    printf '[http]\nlisten = 127.0.0.1:%s\n[admin]\nlisten = 127.0.0.1:%s\nsocket = %s/admin.sock\n[state]\ndirectory = %s/state\n[device]\nbackend = cuda\npartition-mode = %s\n' \
        "$port" $((port + 1)) "$dir" "$dir" "$mode" >"$dir/conf"
    "$here/gpuletd" --config "$dir/conf" >"$log" 2>&1 &
    pid=$!
    text=
    serves
    served=$?
    if ! alive && cannot; then
        cannot_be_had "$why"
        exit
    fi
    told 0 $served || exit
    step 1 taken one two
    step 2 cut_apart
    step 3 at_once
    load &
    loads=$!
    step 4 cut_anew
    step 5 taken three four
    touch "$dir/enough"
    wait $loads
    step 6 counts "$dir"/load-*.json
    cat "$dir"/*.json >"$out/bench-$mode.json"
    step 7 drains
)
part_http() {
    local m port=${PORT:-18000}
    for m in $http_modes; do
        if [ "$(seconds_left)" -gt 0 ] && left http | grep -q "^$m: "; then
            http_mode "$m" "$port" | from_lines | stamp=$(stamp_of "$m") keep http
        fi
        port=$((port + 2))
    done
}
