#!/bin/sh
# The operator cases on the CUDA backend, with the fake driver: its kernels run on the host.  Once
# with the fakes of the libraries, once without any: what they do is then done by our own kernels.
build=${BUILD:-build}
export GPULET_PLUGIN_DIR="$build"
export FAKE_GPU_STRICT=NVML # opened before there is a context
LD_LIBRARY_PATH="$build/test/gpu" "$build/test/ops/test_ops" cuda || bad=1
LD_LIBRARY_PATH="$build/test/gpu/without:$build/test/gpu" "$build/test/ops/test_ops" cuda || bad=1
exit ${bad:-0}
