#!/bin/sh
# The CUDA toolkit to build the plug-in with: prints "NVCC MAJOR.MINOR INCLUDE-FOLDER", or nothing
# where there is none of 12.4 or newer.
for nvcc in "${NVCC:-nvcc}" /usr/local/cuda/bin/nvcc; do
    nvcc=$(command -v "$nvcc" 2>/dev/null) || continue
    version=$("$nvcc" --version 2>/dev/null | sed -n 's/.*release \([0-9]*\.[0-9]*\).*/\1/p')
    major=${version%.*} minor=${version#*.}
    [ "${major:-0}" -gt 12 ] || { [ "${major:-0}" = 12 ] && [ "$minor" -ge 4 ]; } || continue
    for include in "${nvcc%/bin/nvcc}/include" /usr/include; do
        [ -e "$include/cuda.h" ] || continue
        echo "$nvcc $version $include"
        exit 0
    done
done
