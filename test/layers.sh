#!/bin/sh
# Who may include whom (docs/architecture.md), and what the planner may call.
#   test/layers.sh BUILD_FOLDER
set -u
b=$1; bad=0
say() { echo "check-layers: $*"; bad=$((bad + 1)); }

# forbid FOLDERS-OR-FILES REGEX WHY: no source there includes a header that matches
forbid() {
    hits=$(grep -rnE --include='*.[ch]' --include='*.cu' "^ *# *include *[<\"]($2)" $1 2>/dev/null) || return 0
    echo "$hits" | while read -r l; do echo "check-layers: $3: $l"; done
    bad=$((bad + 1))
}
# only HEADER-REGEX ALLOWED-REGEX: the library's header is included nowhere else
only() {
    hits=$(grep -rnE --include='*.[ch]' "^ *# *include *[<\"]($1)" include lib kernels daemon cli 2>/dev/null |
        grep -vE "^($2)") || return 0
    echo "$hits" | while read -r l; do echo "check-layers: $1 belongs in $2: $l"; done
    bad=$((bad + 1))
}

model='gpulet/(graph|onnx|model|ops)\.h|kernels/'
plan='gpulet/(plan|policy|problem|predict)\.h'
engine='gpulet/(engine|request|slab)\.h'
forbid 'lib/base' "$model|$plan|$engine|gpulet/backend" 'base knows nobody'
forbid 'lib/model kernels' "$plan|$engine|gpulet/backend|daemon/|cli/" 'model is below plan, backend and engine'
forbid 'lib/plan' "$model|$engine|gpulet/(backend|clock)|lib/(model|engine|backend)|daemon/|cli/" 'plan is pure'
forbid 'lib/plan' 'time\.h|pthread|stdio|fcntl|unistd|sys/|stdatomic' 'plan has no clock, file, thread or atomics'
forbid 'lib/problem lib/replay' "$engine|gpulet/backend|daemon/|cli/" 'problem and replay stand on plan alone'
forbid 'lib/backend/cpu lib/backend/cuda' "$plan|$engine|daemon/|cli/" 'backends do not know plans'
forbid 'lib/engine' 'daemon/|cli/' 'the engine does not know the daemon'
only 'microhttpd' 'daemon/http(\.c|_raw\.c|_refusal\.[ch])'
only 'ini\.h' 'daemon/config\.c'
only '(oneapi/)?dnnl' 'lib/backend/cpu/'
only 'cuda|cudnn|cublas' 'lib/backend/cuda/|kernels/cuda/'
only 'systemd/' 'daemon/(main|log)\.c'
only 'xxhash' 'lib/base/hash\.c'

# What the planner's objects may call outside themselves.
ok='^(mem(cpy|move|set|cmp|chr)|str(cmp|ncmp|len|chr|cpy|ncpy)|sqrt|exp|log|pow|ceil|floor|fmin|fmax|fabs|lround|round|isfinite'
ok="$ok|err_set|err_wrap|arena_[a-z_]+|__assert_fail|__stack_chk_fail|__[a-z]+_chk|_GLOBAL_OFFSET_TABLE_|__(asan|ubsan|tsan)_.*)\$"
objs=$(ls "$b"/lib/plan/*.o 2>/dev/null)
if [ -n "$objs" ]; then
    defined=$(nm --defined-only $objs | awk 'NF == 3 {print $3}' | sort -u)
    for s in $(nm -u $objs | awk '$1 == "U" {print $2}' | sort -u); do
        echo "$defined" | grep -qx "$s" || echo "$s" | grep -qE "$ok" || say "lib/plan calls $s"
    done
    for o in $objs; do
        objdump -t "$o" | awk 'NF > 4 && ($(NF-2) == ".data" || $(NF-2) == ".bss") && $NF !~ /^\./ && $(NF-1) !~ /^0+$/ {print $NF}' |
            grep -vE '^__' || true
    done >"$b/plan-globals"
    while read -r s; do say "lib/plan has a global that can change: $s"; done <"$b/plan-globals"
fi
[ $bad -eq 0 ] && echo "ok - the layers only point down" || { echo "not ok - the layers only point down"; exit 1; }
