#!/bin/bash
# make fuzz: run one libFuzzer target for some seconds, from its corpus and small models out of the
# ONNX test data.
#
#     test/fuzz/fuzz.sh TARGET SECONDS
#
# What it finds new stays in build-fuzz/corpus/TARGET; an input that crashes, leaks, hangs or takes
# too much memory is left as build-fuzz/found/TARGET/crash-*.  Such a file goes to
# test/fuzz/corpus/TARGET together with the fix.
set -eu
cd "$(dirname "$0")/../.."

target=$1 seconds=$2
data=/usr/share/libonnx-testdata/data
seeds=build-fuzz/seeds
corpus=build-fuzz/corpus/$target
found=build-fuzz/found/$target
mkdir -p "$seeds" "$corpus" "$found" "test/fuzz/corpus/$target"

case $target in
onnx | run | batch | passes)
    if [ -d $data ] && [ -z "$(ls $seeds)" ]; then
        find $data -name model.onnx -size -8k | while read -r f; do
            name=${f%/model.onnx}
            cp "$f" "$seeds/${name##*/}"
        done
    fi
    extra=$seeds
    ;;
*) extra= ;;
esac

exec build-fuzz/test/fuzz/fuzz_"$target" -max_total_time="$seconds" -max_len=8192 -timeout=10 \
    -rss_limit_mb=2000 -print_final_stats=1 -artifact_prefix="$found/" -verbosity=1 \
    "$corpus" "test/fuzz/corpus/$target" $extra
