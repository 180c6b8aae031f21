#!/bin/sh
# make gpu-bundle: a folder, and an archive of it, that runs on x86-64 with glibc 2.36 or newer and a
# driver.  test/gpu/run.sh in it says what.
#   test/gpu/bundle.sh BUILD_FOLDER [MODEL...]      default: all that are named here
#
# The large models come as graphs; their weights are made where they run, by test/gpu/fill.c.
set -eu
b=$1 to=$1/gpu-bundle graphs=build/graphs
shift
[ $# -gt 0 ] || set -- resnet50 mobilenet_v2 vgg19 squeezenet shufflenet_v2 efficientnet_b0 bert-base gpt2-small \
    speech unet warp
rm -rf "$to"
mkdir -p "$to/lib" "$to/models" "$graphs"
cp "$b/gpuletd" "$b/gpuletctl" "$b/gpulet-cuda.so" "$b/test/ops/test_ops" "$b/test/gpu/compare" "$b/test/gpu/facts" \
    "$b/test/gpu/fill" "$b/test/gpu/ladder" test/gpu/run.sh test/gpu/http.sh "$to"
cp "$b/test/gpu/bench" test/gpu/bench.sh test/gpu/bench_serve.sh test/gpu/bench_torch.py "$to"
# Everything but what glibc and the compiler's own libraries bring.
for program in "$to/gpuletd" "$to/gpuletctl" "$to/test_ops"; do
    ldd "$program" | awk '$2 == "=>" && $3 ~ /^\// {print $3}'
done | sort -u | grep -vE '/(libc|libm|libdl|libpthread|librt|ld-linux-x86-64)\.so' | while read -r lib; do
    cp -L "$lib" "$to/lib"
done
for model in test/data/digits*.onnx; do
    name=$(basename "$model" .onnx)
    mkdir "$to/models/$name"
    cp "$model" "$to/models/$name/model.onnx"
done
for name in detector photo; do
    mkdir "$to/models/$name"
    .venv-test/bin/python test/models/$name.py "$to/models/$name"
done
for name; do
    [ "$graphs/$name/model.onnx" -nt test/models/export.py ] ||
        .venv-test/bin/python test/models/export.py --bare "$graphs" "$name" >/dev/null 2>&1 ||
        { echo "skipped: $name: no torch to export it (./bootstrap check installs it)"; continue; }
    cp -r "$graphs/$name" "$to/models"
done
{ git rev-parse --short=12 HEAD 2>/dev/null || echo unknown; } >"$to/commit"
tar -C "$b" -czf "$to.tar.gz" gpu-bundle
du -h "$to.tar.gz"
