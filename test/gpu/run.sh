#!/bin/bash
# What only a GPU can tell, from the folder that `make gpu-bundle` makes.
#
#     run.sh OUT --first | --left | --part ladder|facts|ops|plain|models|http|sanitize|bench-1|...|bench-all|profile ...
#
# Appends a line of JSON for each case to OUT/results.jsonl, for test/gpu/results.py.  A part has nine
# minutes and goes on where it stopped: a case that has its line for this commit is not run again,
# one that has none is named at the end.  --first: ladder, facts and one model, in three minutes; where the ladder
# dies what is behind it is not run.  ladder: tiny steps (ladder.c), each a process of its own.  --left:
# what has not been run.  plain: ops without cuBLASLt and cuDNN, which otherwise are looked for in
# LD_LIBRARY_PATH, a toolkit and Python's nvidia packages.  http: the daemon in each partition mode that can be had
# (http.sh).  bench-N, bench-all, bench-kernels: bench.sh.  bench-serve-N, bench-modes, bench-alone, profile: bench_serve.sh.  Status 0: every
# case is right.  OUT/died*.log: where the first program was that died, and each step of the ladder.  BUDGET=SECONDS for each part, ONLY=PART of the names of its cases (not of facts), LOAD=SECONDS of
# http.
set -u
here=$(cd "$(dirname "$0")" && pwd)
wheels=$(python3 -c 'import glob, nvidia; print(*[f for p in nvidia.__path__ for f in glob.glob(p + "/*/lib")], sep=":")' 2>/dev/null)
export GPULET_PLUGIN_DIR="$here"
export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$here/lib:/usr/local/cuda/lib64${wheels:+:$wheels}"
commit=$(cat "$here/commit")
[ $# -ge 2 ] || { sed -n '2,15s/^# \{0,1\}//p' "$0"; exit 2; }
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd) budget=${BUDGET:-540} only=${ONLY:-}
shift
results=$out/results.jsonl
touch "$results"
gpu=$("$here/facts" --device 2>/dev/null) || gpu='no device'
case $gpu in *cuBLASLt*cuDNN*) libraries=yes ;; *) libraries= ;; esac
# What every line begins with; in a mode that is not what auto takes, with that one.
stamp_of() {
    local where=$gpu
    case $1,$gpu in auto,*) ;; *,*,*) where="${gpu%, *}, $1" ;; esac
    echo "\"commit\": \"$commit\", \"date\": \"$(date -u +%F)\", \"gpu\": \"$where\""
}
stamp=$(stamp_of auto)

# Lines of JSON on stdin, into the results of a part.
keep() { sed -u "s|^{|{$stamp, \"part\": \"$1\", |" | tee -a "$results"; }
# "ok - name", "not ok - name" and "none - name" as JSON; what follows is its text.
from_lines() {
    awk 'function put() { if (name != "") {
             gsub(/["\\]/, "", name); gsub(/["\\]/, "", text)
             printf "{\"case\": \"%s\", \"ok\": %s, \"text\": \"%s\"}\n", name, ok, text; fflush() }
             name = ""; text = "" }
         /^(not ok|ok|none) - / { put(); ok = /^ok/ ? "true" : /^not/ ? "false" : "null"
                                  name = $0; sub(/^(not ok|ok|none) - /, "", name) }
         /^#   / { text = text (text == "" ? "" : "; ") substr($0, 5) }
         END { put() }'
}
# Names of the cases of a part that have their line.
ran() { sed -n "s|^{\"commit\": \"$commit\".*\"part\": \"$1\", \"case\": \"\(.*\)\", \"ok\": [tf].*|\1|p" "$results" | sort -u; }
# The part has its line that compute-sanitizer cannot be had here.
refused() { grep -q "^{\"commit\": \"$commit\".*\"part\": \"sanitize\", \"case\": \"compute-sanitizer\", \"ok\": null" "$results"; }
# Names that a part must have; "(end)" where only it knows them.
cases() {
    case $1 in
    # What a detector chooses may be others where its scores are rounded.
    models) for m in "$here"/models/*/; do
            for b in 1 8 ${libraries:+'8, fp16' '8, bf16'}; do echo "$(basename "$m") on cuda, batch $b"; done
        done | grep -v '^detector .*16$' | grep -F -- "$only" ;;
    plain) [ -z "$libraries" ] || without "$here/test_ops" -l ${only:+-k "$only"} cuda ;;
    sanitize) refused || "$here/test_ops" -l ${only:+-k "$only"} cuda ;;
    ops) "$here/test_ops" -l ${only:+-k "$only"} cuda ;;
    ladder) "$here/ladder" --list | grep -vxFf <(lacking) ;;
    http) http_cases | grep -F -- "$only" ;;
    bench-[1-5]) bench_cases "${1#bench-}" ;;
    bench-kernels) echo '(end)' ;;
    bench-* | profile) serve_cases "${1#bench-}" ;;
    *) echo '(end)' ;;
    esac | sort
}
left() { comm -23 <(cases "$1") <(ran "$1"); }
seconds_left() { echo $((until - SECONDS > 0 ? until - SECONDS : 0)); }
# Runs within what is left of the part's time; 124 when it is over.
timed() {
    local n
    n=$(seconds_left)
    [ "$n" -gt 0 ] || return 124
    timeout "$n" "$@"
    n=$?
    [ $n != 139 ] || died died.log "$@"
    return $n
}
# A program that ended by a segmentation fault, once more: where it was.  By what it leaves, as under a debugger it
# may not die; where nothing is left, under one.  Once for each file, as one tells most.
died() {
    local gdb file=$out/$1 core
    shift
    gdb=$(command -v cuda-gdb || command -v gdb) && [ ! -e "$file" ] || return
    touch "$out/again"
    (ulimit -c unlimited && timeout 60 "$@" </dev/null >/dev/null 2>&1)
    core=$(find . -maxdepth 1 -name 'core*' -type f -newer "$out/again" | head -n 1)
    if [ -n "$core" ]; then
        timeout 60 "$gdb" -batch -ex backtrace -ex 'thread apply all backtrace' "$1" "$core" </dev/null >"$file" 2>&1
        rm -f "$core"
    else
        timeout 60 "$gdb" -batch -ex run -ex backtrace -ex 'thread apply all backtrace' --args "$@" </dev/null >"$file" 2>&1
    fi
    rm -f "$out/again"
    echo "it died: $*: OUT/${file##*/}" >&2
}

# All steps are tried first.  Those that died have their line at once, and another one with where they were, as far
# as the time goes.
part_ladder() {
    local name file
    rm -f "$out/fallen"
    "$here/ladder" --list | while IFS= read -r name; do
        ran ladder | grep -qxF "$name" || [ "$(seconds_left)" = 0 ] || rung "$name"
    done | from_lines
    while IFS= read -r name && [ "$(seconds_left)" -gt 0 ]; do
        file=died-$(tr -c 'a-z\n' - <<<"${name,,}").log
        died "$file" "$here/ladder" "$name"
        { fell "$name" && sed -n 's/^#\([0-9]\{1,3\} .*\)/#   at \1/p' "$out/$file" | head -n 12; } | from_lines
    done < <(cat "$out/fallen" 2>/dev/null)
}
# One step: its verdict, then what it said.
rung() {
    local status
    timeout 30 "$here/ladder" "$1" </dev/null >"$out/rung" 2>&1
    status=$?
    case $status in
    124) said_of "not ok - $1" 'did not end in 30 s' ;;
    129 | 1[3-9]?)
        echo "$1" >>"$out/fallen"
        said_of "not ok - $1" "ended by SIG$(kill -l $((status - 128)))" | tee "$out/fallen-$1"
        ;;
    *) said_of "$(grep -E '^(ok|not ok|none) - ' "$out/rung" || echo "not ok - $1")" ;;
    esac
}
said_of() {
    echo "$1"
    sed -n 's/^#   //; /^\(ok\|not ok\|none\) - /!s/^/#   /p' "$out/rung"
    [ -z "${2-}" ] || echo "#   $2"
}
fell() { cat "$out/fallen-$1"; }
# Steps that this machine has not what they are about, of this version; and those that died.
lacking() { sed -n "s|^{\"commit\": \"$commit\".*\"part\": \"ladder\", \"case\": \"\(.*\)\", \"ok\": null, \"text\": \"[^n].*|\1|p" "$results"; }
fallen() { sed -n "s|^{\"commit\": \"$commit\".*\"part\": \"ladder\", \"case\": \"\(.*\)\", \"ok\": false.*ended by SIG.*|\1|p" "$results" | sort -u; }

part_facts() {
    timed "$here/facts" "$here/models/digits"
    local r=$?
    [ $r -ge 124 ] || facts_mps
    ended facts $((r > $? ? r : $?))
}
facts_mps() (
    say() { echo "{\"case\": \"mps: $1\", \"ok\": true, \"text\": \"$(tr -d '"\\\n' <<<"$2")\"}"; }
    trap mps_stop EXIT
    if ! mps_start; then
        say "a daemon cannot be started" "$said"
        exit 0
    fi
    say "a daemon can be started" "$said"
    timed "$here/facts" --mps "$here/models/digits"
)
# A daemon of MPS with a folder of its own, until mps_stop; else `said` is why there is none.  No setting of
# a device is changed.
mps_start() {
    local control=nvidia-cuda-mps-control
    command -v $control >/dev/null || { said="there is no $control"; return 1; }
    mps_dir=$(mktemp -d /tmp/mps.XXXXXX)
    export CUDA_MPS_PIPE_DIRECTORY=$mps_dir CUDA_MPS_LOG_DIRECTORY=$mps_dir
    said=$(timeout 20 $control -d 2>&1) || { said="$control: ${said:-status $?}"; return 1; }
}
mps_stop() {
    [ -n "${mps_dir-}" ] || return 0
    echo quit | timeout 20 nvidia-cuda-mps-control >/dev/null 2>&1
    cat "$mps_dir"/*.log >>"$out/mps.log" 2>/dev/null
    rm -rf "$mps_dir"
}
ended() { [ "$2" -ge 124 ] || echo "{\"case\": \"(end)\", \"ok\": $([ "$2" = 0 ] && echo true || echo false), \"text\": \"status $2\"}"; }

# As on a machine that lacks the libraries: what the loader finds first is none.
without() {
    mkdir -p "$out/without"
    touch "$out/without/"{libcublasLt.so.12,libcublasLt.so.13,libcudnn.so.9}
    LD_LIBRARY_PATH="$out/without:$LD_LIBRARY_PATH" "$@"
}
part_plain() { ran plain >"$out/ran"; without timed "$here/test_ops" -s "$out/ran" ${only:+-k "$only"} cuda | from_lines; }
part_ops() { ran ops >"$out/ran"; timed "$here/test_ops" -s "$out/ran" ${only:+-k "$only"} cuda | from_lines; }

# Weights are made when a model's turn comes: they are large.
part_models() {
    left models | while IFS= read -r name; do
        local model=${name%% on *} batch=${name##*batch } precision=fp32
        case $batch in *,*) precision=${batch#*, } batch=${batch%,*} ;; esac
        cd "$here/models" && { [ ! -e "$model/model.fill" ] || "$here/fill" "$model"; } &&
            timed "$here/compare" -p $precision cuda "$batch" "$model" </dev/null || [ $? != 124 ] || break
        rm -f "$model/model.weights"
    done | from_lines
}

# What the tool finds between two cases is the second one's.  After an error the device is gone, and the
# next start goes on behind the case that had it.  A device that it refuses is asked with one case before:
# what runs without being looked at is not right.
sanitizer() { timed compute-sanitizer --report-api-errors no --print-limit 4 "$here/test_ops" "$@" cuda 2>&1 | tee -a "$out/sanitize.log"; }
part_sanitize() {
    local before=-1 now=0 why='there is no compute-sanitizer'
    ! command -v compute-sanitizer >/dev/null ||
        why=$(sanitizer -k "$(left sanitize | head -n 1)" | sed -n 's/^========= *\(.*not supported.*\)/\1/p' | head -n 1)
    if [ -n "$why" ]; then
        printf 'none - compute-sanitizer\n#   cannot be had: %s\n' "$why" | from_lines | keep sanitize
        return
    fi
    while [ "$now" -gt "$before" ] && [ -n "$(left sanitize)" ] && [ "$(seconds_left)" -gt 0 ]; do
        before=$now
        ran sanitize >"$out/ran"
        sanitizer -s "$out/ran" ${only:+-k "$only"} |
            awk '/^=========.*(Invalid|Error|error|Race|Uninit|Misaligned|Leaked|exception)/ && !/ERROR SUMMARY: 0/ { found = found "#   " $0 "\n" }
                 /^#   / { print }
                 /^(not )?ok - / { if (found != "") sub(/^ok/, "not ok"); print; printf "%s", found; found = ""; fflush() }' |
            from_lines | keep sanitize
        now=$(ran sanitize | wc -l)
    done
}

. "$here/http.sh"

. "$here/bench.sh"
. "$here/bench_serve.sh"

# Fills a line with nothing for what was not run, so that it shows in the results, too.  $2: why not.
name_left() {
    left "$1" | while IFS= read -r name; do
        echo "not run${2:+, $2}: part $1, $name" >&2
        echo "{\"case\": \"$name\", \"ok\": null, \"text\": \"not run${2:+: $2}\"}"
    done
}
run_part() {
    if [ -z "$(left "$1")" ]; then
        echo "part $1 was run for $commit"
    else
        until=$((SECONDS + budget))
        case $1 in sanitize | http) part_"$1" ;; *) part_"$1" | keep "$1" ;; esac
    fi
    told_of "$1"
}
# Is it complete and right?  What is missing is named.
told_of() {
    name_left "$1" | keep "$1" >/dev/null
    ! grep -q "^{\"commit\": \"$commit\".*\"part\": \"$1\".*\"ok\": false" "$results" && [ -z "$(left "$1")" ]
}

# bench-1 to bench-5 in the time of one, with the lines that each has by itself.
run_all_benches() {
    local part r=0
    until=$((SECONDS + budget))
    bench_all
    for part in bench-{1..5}; do told_of $part || r=1; done
    return $r
}

# In three minutes.  Where a step dies so would a model and a daemon.
run_first() {
    local begun=$SECONDS r=0 dead
    budget=70 run_part ladder || r=1
    dead=$("$here/ladder" --list | grep -xFf <(fallen) | head -n 1)
    if [ -n "$dead" ]; then
        name_left facts "the ladder died at '$dead'" | keep facts >/dev/null
        only=digits name_left models "the ladder died at '$dead'" | keep models >/dev/null
        return 1
    fi
    budget=$((130 + begun - SECONDS)) run_part facts || r=1
    only=digits budget=$((180 + begun - SECONDS)) run_part models || r=1
    return $r
}

bad=0
while [ $# -gt 0 ]; do
    case $1 in
    --first) run_first || bad=1 ;;
    --left) for part in ladder facts ops plain models http sanitize $bench_parts; do left $part | sed "s/^/part $part: /"; done ;;
    --part) case ${2-} in
        bench-all) run_all_benches || bad=1; shift ;;
        ladder | facts | ops | plain | models | http | sanitize | bench-[1-5] | bench-kernels | bench-serve-[248] | bench-modes | bench-alone | profile) run_part "$2" || bad=1; shift ;;
        *) echo "no part '${2-}'"; exit 2 ;;
        esac ;;
    *) echo "no option '$1'"; exit 2 ;;
    esac
    shift
done
exit $bad
