#!/bin/sh
# The CUDA toolkit to build the plug-in with: prints "NVCC MAJOR.MINOR INCLUDE-FOLDER ARCH...",
# or nothing where there is none of 12.4 or newer.  ARCH: what it can make code for, of what we want.
# 90 and not 90a: adr/0026.
# NVCC in the environment is the only one that is tried; empty: none.
for nvcc in ${NVCC-nvcc /usr/local/cuda/bin/nvcc}; do
    nvcc=$(command -v "$nvcc" 2>/dev/null) || continue
    version=$("$nvcc" --version 2>/dev/null | sed -n 's/.*release \([0-9]*\.[0-9]*\).*/\1/p')
    major=${version%.*} minor=${version#*.}
    [ "${major:-0}" -gt 12 ] || { [ "${major:-0}" = 12 ] && [ "$minor" -ge 4 ]; } || continue
    for include in "${nvcc%/bin/nvcc}/include" /usr/include; do
        [ -e "$include/cuda.h" ] || continue
        archs='80 90'
        [ "$major" = 12 ] && [ "$minor" -lt 8 ] || archs="$archs 100"
        echo "$nvcc $version $include $archs"
        exit 0
    done
done
