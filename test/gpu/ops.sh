#!/bin/sh
# The operator cases on the CUDA backend, with the fake driver: its kernels run on the host.
build=${BUILD:-build}
export LD_LIBRARY_PATH="$build/test/gpu" GPULET_PLUGIN_DIR="$build"
exec "$build/test/ops/test_ops" cuda
