#!/bin/bash
# Which toolkit the plug-in is built with, and what is said and built where there is none.
set -u
cd "$(dirname "$0")/../.." || exit 1
out=$(mktemp -d) || exit 1
trap 'rm -rf "$out"' EXIT
unset MAKEFLAGS MAKELEVEL CUDA_ARCHS
ok() { if "$@" >"$out/log" 2>&1; then echo "ok - $what"; else echo "not ok - $what"; tail -4 "$out/log" | sed 's/^/# /'; fi; }
no() { ! "$@"; }
found() { [ "$(lib/backend/cuda/toolkit.sh)" = "$1" ]; }
# What make would have the compiler make.
codes() {
    make -n "$out/none/gpulet-cuda.so" B="$out/none" | grep -F ' --fatbin ' | grep -o ',code=[a-z0-9_]*' >"$out/codes"
    cat "$out/codes"
    [ "$(cat "$out/codes")" = "$(printf ',code=%s\n' "$@")" ]
}

# A toolkit of a version: its compiler, and a header.
toolkit() {
    mkdir -p "$out/$1/bin" "$out/$1/include"
    touch "$out/$1/include/cuda.h"
    printf '#!/bin/sh\necho "Cuda compilation tools, release %s, V%s.1"\n' "$1" "$1" >"$out/$1/bin/nvcc"
    chmod +x "$out/$1/bin/nvcc"
    export NVCC=$out/$1/bin/nvcc
}
toolkit 12.3
what='a toolkit before 12.4 is none' && ok found ''
toolkit 12.4
what='one of 12.4 makes code for 80 and 90' && ok found "$NVCC 12.4 $out/12.4/include 80 90"
what='and PTX of 90 for later ones' && ok codes sm_80 sm_90 compute_90
toolkit 12.8
what='one of 12.8 makes code for 100, too' && ok found "$NVCC 12.8 $out/12.8/include 80 90 100"
what='and PTX of 100' && ok codes sm_80 sm_90 sm_100 compute_100
what='CUDA_ARCHS chooses others, whose PTX has no letter' && CUDA_ARCHS='90a 103f' ok codes sm_90a sm_103f compute_103
toolkit 13.0
what='so does one of 13.0' && ok found "$NVCC 13.0 $out/13.0/include 80 90 100"
rm "$out/13.0/include/cuda.h"
what='a compiler without headers is none, or has those of the system' && ok no grep -F "$out" <(lib/backend/cuda/toolkit.sh | cut -d ' ' -f 3)

export NVCC=
what='without a compiler there is none' && ok found ''
make --no-print-directory all >"$out/all" 2>&1
what='make says so in one line' && ok test "$(grep -c '^skipped: no CUDA toolkit$' "$out/all")" = 1
make -n B="$out/none" all tests man >"$out/steps" 2>&1
what='it makes everything else' && ok grep -q "LD  $out/none/gpuletd" "$out/steps"
what='and nothing that needs one' && ok no grep -E 'lib/backend/cuda/[a-z]|test/gpu/[a-z]|NVCC' "$out/steps"
test/check.sh cuda >"$out/check" 2>&1
what='make check says so where the part would be' && ok grep -q '^== cuda *skipped: no CUDA toolkit$' "$out/check"
what='and counts it as nothing' && ok grep -q '^0 passed, 0 failed$' "$out/check"
