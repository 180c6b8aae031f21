#!/bin/bash
# Runs as root inside the booted container of run.sh.  Every check is a sentence.
# shellcheck disable=SC2016,SC2086,SC2317  # eval runs what is quoted; $SOCKETS is a list
set -u

MODEL=digits
STALLING=digits-tiny

# A simulated device where a run takes 20 ms; the same with an executor that does not come back
# for a minute; the same that loses the device, so that the process must leave.
TYPE='"version": 1, "types": [{"name": "four", "granules": 4}], "devices": [{"type": "four", "count": 1}]'
PROFILE='"max_batch": 1, "profile": {"four": {"batch": [1], "units": [1], "run_ms": [[20]]}}'
MODELS="\"models\": [{\"name\": \"$MODEL\", $PROFILE}, {\"name\": \"$STALLING\", $PROFILE}]"
FAULT="\"model\": \"$STALLING\", \"run\": 1"
SIM_FILE="{$TYPE, $MODELS}"
SIM_FILE_STALLED="{$TYPE, $MODELS, \"sim\": {\"faults\": [{$FAULT, \"kind\": \"stall\", \"stall_ms\": 60000}]}}"
SIM_FILE_LOST="{$TYPE, $MODELS, \"sim\": {\"faults\": [{$FAULT, \"kind\": \"exit\"}]}}"

# An option that reload changes, and how it is seen: a body of this size is refused with 413.
RELOAD_GOOD='[http]
body-bytes = 5000'
RELOAD_BAD='[http]
body-bytes = banana'
BIG_BODY=6000

# A device call longer than this is a stall.
STALL_LIMIT='[limits]
stall-ms = 1000'

# Journal fields that some entry of the daemon must have, and its kinds of events.
FIELDS='GPULETD_EVENT GPULETD_MODEL GPULETD_VERSION GPULETD_GPULET'
EVENTS='start load reload stall fault stop'

SOCKETS='gpuletd-http.socket gpuletd-admin.socket gpuletd-unix.socket'
DATA=http://127.0.0.1:8000
ADMIN=http://127.0.0.1:8001
cd "$(dirname "$0")" || exit 1

n_ok=0 n_failed=0
# check "a sentence" COMMAND...: its output is shown if it fails.
check() {
    local sentence=$1 said
    shift
    if said=$("$@" 2>&1); then
        n_ok=$((n_ok + 1))
        echo "ok      $sentence"
    else
        n_failed=$((n_failed + 1))
        echo "FAILED  $sentence"
        printf '%s\n' "$said" | tail -40 | sed 's/^/          /'
    fi
}

finish() {
    [ $n_failed = 0 ] || { echo "-- the journal's end"; journalctl -q -u gpuletd.service -n 60 --no-hostname; }
    echo "$n_ok passed, $n_failed failed"
    exit
}

# within SECONDS COMMAND...: true as soon as the command is.
within() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || { echo "not in time: $*"; return 1; }
        sleep 0.1
    done
}

property() { systemctl show -P "$1" gpuletd.service; }
since_mark() { journalctl -q -u gpuletd.service --after-cursor="$cursor" "$@"; }
mark() { cursor=$(journalctl -q -n 1 -o json --output-fields=_PID | sed 's/.*"__CURSOR" *: *"\([^"]*\)".*/\1/'); }
status_of() { curl -s -m 60 -o /dev/null -w '%{http_code}\n' "$@"; }
infer() { status_of -d @request "$DATA/v2/models/${1:-$MODEL}/infer"; }
answers() { [ "$(status_of "$@")" = 200 ]; }
ready() { answers "$DATA/v2/health/ready"; }

configure() {
    printf '%s\n' "$1" >/etc/gpuletd/sim
    printf '[device]\nbackend = sim\nsim-file = /etc/gpuletd/sim\n%s\n' "${2-}" \
        >/etc/gpuletd/gpuletd.conf
}

# Prints how often each status came; fails unless all of $2... and $1 lines in all.
only() {
    local n=$1 got
    shift
    got=$(sort all | uniq -c)
    echo "$got"
    [ "$(wc -l <all)" -ge "$n" ] && ! grep -qvxE "$(IFS='|'; echo "$*")" all
}

printf '{"inputs":[{"name":"image","shape":[1,1,8,8],"datatype":"FP32","data":[%s]}]}\n' \
    "$(seq -s, 64 | sed 's/[0-9]*/1/g')" >request
configure "$SIM_FILE"

# -- start and readiness

is_ready_when_start_returns() { systemctl start gpuletd.service && ready; }
runs_as_gpuletd() { [ "$(stat -c %U:%G "/proc/$(property MainPID)")" = gpuletd:gpuletd ]; }
says_status() { [ "$(property StatusText)" = Serving ]; }
# thread_nice PATTERN: of the threads whose name begins so; fails when there is none.
thread_nice() { cat "/proc/$(property MainPID)"/task/*/stat | sed -n "s/.*($1[^)]*) *//p" | cut -d' ' -f17 | sort -u | grep .; }
builder_stands_back() {
    echo "builder: $(thread_nice builder), executors: $(thread_nice gpulet-)"
    [ "$(thread_nice builder)" = 10 ] && [ "$(thread_nice gpulet-)" = 0 ]
}

mark
check "systemctl start returns when the daemon is ready" is_ready_when_start_returns
[ $n_failed = 0 ] || finish
check "it runs as the user gpuletd" runs_as_gpuletd
check "it tells systemd what it is doing (StatusText)" says_status
check "a model is registered" answers -T digits.onnx "$ADMIN/v1/models/$MODEL"
check "a second one is registered" answers -T digits-tiny.onnx "$ADMIN/v1/models/$STALLING"
check "the model answers" eval '[ "$(infer)" = 200 ]'
check "its sandbox lets the builder stand back behind executors" builder_stands_back

# -- activation

is_active() { [ "$(property ActiveState)" = active ]; }
# (The admin port answers before the models are loaded, and active means that they are.)
activates() {
    systemctl stop gpuletd.service 2>/dev/null
    [ "$(property ActiveState)" = inactive ] || { echo "still $(property ActiveState)"; return 1; }
    answers "$@" && within 10 is_active
}
unix_socket_is_for_the_group() { [ "$(stat -c '%a %G' /run/gpuletd/admin.sock)" = '660 gpuletd' ]; }

check "a connection to the http socket starts it and is answered" activates "$DATA/v2/health/ready"
check "a connection to the admin socket starts it and is answered" activates "$ADMIN/v1/models"
check "a connection to the Unix socket starts it and is answered" \
    activates --unix-socket /run/gpuletd/admin.sock http://localhost/v1/models
check "the Unix socket is for root and the group gpuletd" unix_socket_is_for_the_group
check "the model is still there after these restarts" answers "$DATA/v2/models/$MODEL"

# -- reload

refuses_big_body() { [ "$(head -c $BIG_BODY /dev/zero | tr '\0' ' ' | status_of -d @- "$DATA/v2/models/$MODEL/infer")" = 413 ]; }
takes_big_body() { ! refuses_big_body; }
same_process() { [ "$(property MainPID)" = "$pid" ] && [ "$(property ActiveState)" = active ]; }
reload_applies() {
    takes_big_body || { echo "refused before the reload"; return 1; }
    systemctl reload gpuletd.service && within 5 refuses_big_body && same_process
}
reload_refuses() { ! systemctl reload gpuletd.service && same_process && refuses_big_body && ready; }
hangup_refuses() {
    mark
    kill -HUP "${pid:?}"
    within 5 eval 'since_mark -p err | grep -q .' || return 1
    within 5 eval '[ "$(property ActiveState)" = active ]'
    same_process && refuses_big_body && ready
}

pid=$(property MainPID)
configure "$SIM_FILE" "$RELOAD_GOOD"
check "reload applies a good file, in the same process" reload_applies
configure "$SIM_FILE" "$RELOAD_BAD"
check "reload with a bad file fails and the old configuration stays" reload_refuses
check "so does a bare SIGHUP, and the journal says why" hangup_refuses
configure "$SIM_FILE"
check "reload goes back" eval 'systemctl reload gpuletd.service && within 5 takes_big_body'

# -- a bad file at the start

gives_up() {
    mark
    ! systemctl start gpuletd.service && [ "$(property ExecMainStatus)" = 78 ] &&
        [ "$(property NRestarts)" = 0 ] && since_mark -o cat | grep banana
}
systemctl stop gpuletd.service 2>/dev/null
configure "$SIM_FILE" "$RELOAD_BAD"
check "with a bad file it does not start, says why, and is not tried again" gives_up
# Every knock on a socket is a start: soon systemd gives up and closes the sockets too.
gives_up_the_sockets() {
    infer >/dev/null
    within 10 eval '[ "$(systemctl show -P Result gpuletd-http.socket)" = service-start-limit-hit ]'
}
is_back() { systemctl reset-failed 'gpuletd*' && is_ready_when_start_returns && [ "$(infer)" = 200 ]; }
check "clients that knock meanwhile do not start it for ever" gives_up_the_sockets
configure "$SIM_FILE"
check "mended, and told so with reset-failed, it serves again" is_back

# -- watchdog

load() { # 16 clients for $1 seconds, a status a line into `all`
    : >all
    for _ in $(seq 16); do
        (end=$((SECONDS + $1)); while [ $SECONDS -lt $end ]; do infer; done) >>all &
    done
}

restarted_by_watchdog() {
    mark
    infer $STALLING >/dev/null &
    within 30 eval 'since_mark | grep -q "Failed with result .watchdog"' || { since_mark; return 1; }
    since_mark | grep 'the watchdog is not fed' && within 30 ready && [ "$(infer)" = 200 ]
}
is_fed_under_load() {
    mark
    load 6
    # shellcheck disable=SC2046
    wait $(jobs -p)
    only 50 200 && ! since_mark | grep -q 'Failed with result'
}

mkdir -p /run/systemd/system/gpuletd.service.d
printf '[Service]\nWatchdogSec=2\n' >/run/systemd/system/gpuletd.service.d/test.conf
systemctl daemon-reload
systemctl restart gpuletd.service
check "six seconds of load do not trip a watchdog of two" is_fed_under_load
configure "$SIM_FILE_STALLED" "$STALL_LIMIT"
systemctl restart gpuletd.service
check "a stalled executor is killed by the watchdog, and the next process answers" restarted_by_watchdog

# -- a device that is lost

leaves_and_returns() {
    local old
    old=$(property MainPID)
    mark
    infer $STALLING >/dev/null
    within 10 eval 'since_mark | grep -q "leaving to be restarted"' || { since_mark; return 1; }
    within 30 ready && [ "$(infer)" = 200 ] && [ "$(property MainPID)" != "$old" ]
}
configure "$SIM_FILE_LOST"
systemctl restart gpuletd.service
check "a lost device: the process leaves, and the next one answers" leaves_and_returns
configure "$SIM_FILE"
rm -r /run/systemd/system/gpuletd.service.d
systemctl daemon-reload
systemctl restart gpuletd.service

# -- kill -9 while connections wait

# The daemon is stopped in its tracks, so that all 50 connections wait in the socket's queue.
waiting_connections_survive_kill() {
    local old
    old=$(property MainPID)
    kill -STOP "$old"
    for _ in $(seq 50); do infer & done >all
    sleep 1
    [ ! -s all ] || { echo "answered while stopped"; return 1; }
    kill -KILL "$old"
    # shellcheck disable=SC2046
    wait $(jobs -p)
    only 50 200 && [ "$(property MainPID)" != "$old" ]
}
check "kill -9: 50 waiting connections are all answered by the next process" waiting_connections_survive_kill
check "the model that was registered is served again" eval '[ "$(infer)" = 200 ]'

# -- stop under load

stop_under_load() {
    mark
    load 4
    sleep 1.5
    systemctl stop gpuletd.service 2>/dev/null
    # shellcheck disable=SC2046
    wait $(jobs -p)
    since_mark -o cat
    only 50 200 503 && since_mark | grep -q 'Deactivated successfully' &&
        ! since_mark | grep -q 'Failed with result'
}
restart_under_load() {
    mark
    load 4
    sleep 1.5
    systemctl restart gpuletd.service
    # shellcheck disable=SC2046
    wait $(jobs -p)
    only 50 200 503 && ! since_mark | grep -q 'Failed with result'
}
stops_for_good() {
    systemctl stop $SOCKETS gpuletd.service && [ "$(property ActiveState)" = inactive ] &&
        [ "$(status_of "$DATA/v2/health/live")" = 000 ] &&
        ! find /proc -maxdepth 1 -user gpuletd | grep .
}
check "stop under load: everything accepted is answered, exit status 0" stop_under_load
check "restart under load: no connection fails" restart_under_load

# -- the CPU inside the sandbox, and gpuletctl

# The request is an image of ones: which digit that is does not matter, ten finite scores do.
scores() { infer_says "$1" | grep -qE '"data": ?\[-?[0-9.e-]+(, ?-?[0-9.e-]+){9}\]'; }
infer_says() { curl -s -m 60 -d @request "$DATA/v2/models/$1/infer" | tee /dev/stderr; }
status_by_socket() {
    gpuletctl --server unix:/run/gpuletd/admin.sock status | tee /dev/stderr | grep -q "^$MODEL .*READY"
}
printf '[device]\nbackend = cpu\n' >/etc/gpuletd/gpuletd.conf
systemctl restart gpuletd.service
check "the CPU's gpu-lets answer from within the sandbox" scores $MODEL
check "so does the other model" scores $STALLING
check "gpuletctl status works by the Unix socket" status_by_socket

# -- kill -9 under load, with several models on the CPU

BATCHING=digits-batch
LOADED="$MODEL $STALLING $BATCHING"
ANSWER_S=20 # for what waits while the daemon comes back
N_KILLS=5

# Sends a request on a connection of its own; a line says when it began and ended in us, curl's
# exit status, and the reply's.
request_line() {
    local began=${EPOCHREALTIME/./} status failed=0
    status=$(curl -s -m $ANSWER_S -o /dev/null -w '%{http_code}' -d @request \
        "$DATA/v2/models/$1/infer") || failed=$?
    echo "$began ${EPOCHREALTIME/./} $failed $status"
}
client() { while [ -e loading ]; do request_line "$1"; done; }

# points FROM MODEL, load_s: what the daemon says in its metrics (the file is in `metrics`).
points() { sed -n "s/^gpuletd_model_profile_points_total{model=\"$2\",.*from=\"$1\"} //p" metrics; }
load_s() { awk '/^gpuletd_model_load_seconds\{/ { s += $2 } END { print s }' metrics; }
metrics() { curl -s -m 10 "$ADMIN/metrics" >metrics; }
is_kept() { curl -s "$ADMIN/v1/profiles/$1" | cmp -s - "/var/lib/gpuletd/profiles/$1.json"; }
is_stopped() { grep -q '^State:.T' "/proc/$1/status"; }

# What began before the daemon stopped may be lost with it, if it had been accepted; what began
# after that waits on the sockets.  Nobody may be left waiting.
all_fates_are_fair() {
    awk -v stopped="$1" -v least="$2" '
        $3 == 28 { hung++ }
        $3 == 0 && ($4 == 200 || $4 == 503) { n[$4]++; waited += $1 >= stopped; next }
        $1 >= stopped || ($3 != 52 && $3 != 56) { print "unfair:", $0; bad++ }
        { lost++ }
        END {
            printf "        %d answered, %d refused, %d of these waited for the socket; %d lost, %d hung\n",
                n[200], n[503], waited, lost, hung
            exit bad || hung || waited < least
        }' all
}

kill_under_load() {
    local model old stopped exec_us first_us n_waiting=0
    local -A known
    for model in $LOADED; do
        within 30 is_kept "$model" || return 1
    done
    metrics
    for model in $LOADED; do
        known[$model]=$(($(points kept "$model") + $(points measured "$model")))
    done
    old=$(property MainPID)
    : >all
    : >loading
    for model in $LOADED; do
        for _ in 1 2 3 4; do client "$model" >>all & done
    done
    sleep "$((RANDOM % 2)).$((RANDOM % 900 + 100))"
    kill -STOP "$old"
    within 5 is_stopped "$old" || return 1
    stopped=${EPOCHREALTIME/./}
    for model in $LOADED; do
        for _ in 1 2 3 4 5 6 7 8; do request_line "$model" >>all & n_waiting=$((n_waiting + 1)); done
    done
    sleep "0.$((RANDOM % 400 + 100))"
    kill -KILL "$old"
    within $ANSWER_S ready && sleep 0.5
    metrics
    rm loading
    # shellcheck disable=SC2046
    wait $(jobs -p)
    all_fates_are_fair "$stopped" $n_waiting >told || { cat told; return 1; }
    [ "$(property MainPID)" != "$old" ] || return 1
    exec_us=$(date -d "$(systemctl show --timestamp=us+utc -P ExecMainStartTimestamp gpuletd.service)" +%s%6N)
    first_us=$(awk -v since="$exec_us" '$2 > since && $4 == 200 && (!t || $2 < t) { t = $2 } END { print t }' all)
    awk -v us=$((first_us - exec_us)) -v load_s="$(load_s)" 'BEGIN {
        printf "        first answer %.0f ms after exec, %.2f times the load of all models (%.0f ms)\n",
            us / 1e3, us / 1e6 / load_s, load_s * 1e3 }' >>told
    for model in $LOADED; do
        echo "$model: knew ${known[$model]}, kept $(points kept "$model"), measured $(points measured "$model")"
        [ "$(points kept "$model")" -ge "${known[$model]}" ] || return 1
        [ "$(points measured "$model")" = 0 ] || return 1
    done
}

check "a model that batches is registered" answers -T digits-batch.onnx "$ADMIN/v1/models/$BATCHING?slo_ms=200"
for i in $(seq $N_KILLS); do
    check "kill -9 under load, $i: who waits is answered, and nothing is measured again" kill_under_load
    cat told
done
for model in $LOADED; do
    check "after it $model still answers" eval '[ "$(infer $model)" = 200 ]'
done

check "with its sockets stopped too, it stays down and leaves no process" stops_for_good

# -- journal and unit files

for field in $FIELDS; do
    check "the journal has the field $field" \
        eval "journalctl -q -u gpuletd.service -o json | grep -q '\"$field\"'"
done
for event in $EVENTS; do
    check "the journal has an event '$event'" \
        eval "journalctl -q -u gpuletd.service GPULETD_EVENT=$event -o cat | grep -q ."
done
# (No unit of ours has a man page in a tree without man.)
verifies() { [ -z "$(systemd-analyze verify --man=no gpuletd.service $SOCKETS 2>&1 | tee /dev/stderr)" ]; }
check "systemd-analyze verify has nothing to say" verifies
check "systemd-analyze security is 3.0 or better" systemd-analyze security --threshold=30 --no-pager gpuletd.service

finish
