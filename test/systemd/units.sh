#!/bin/bash
# The unit files are correct and the sandbox is tight; needs no running systemd.
set -eu
cd "$(dirname "$0")/../.."

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
# Before `make install` there is no /usr/sbin/gpuletd to find, and MPS comes with a driver.
for unit in systemd/*.service systemd/*.socket; do
    sed "s|/usr/sbin/gpuletd|$PWD/build/gpuletd|; s|/usr/bin/nvidia-cuda-mps-control|/bin/true|" "$unit" >"$tmp/${unit##*/}"
done
systemd-analyze verify --man=no "$tmp"/*.* 2>"$tmp/log" || { cat "$tmp/log"; exit 1; }
[ ! -s "$tmp/log" ] || { cat "$tmp/log"; exit 1; }
# Both processes must mean the same folder: it decides whether there is MPS at all.
pipes=$(sed -n 's/^Environment=.*CUDA_MPS_PIPE_DIRECTORY=\([^ ]*\).*/\1/p' systemd/gpuletd.service systemd/gpuletd-mps.service | sort -u)
[ "$pipes" = /run/gpuletd-mps ] || { echo "the units name different folders for MPS: $pipes"; exit 1; }
for line in User Group; do
    [ "$(grep -h "^$line=" systemd/gpuletd.service systemd/gpuletd-mps.service | sort -u | wc -l)" = 1 ] ||
        { echo "the units differ in $line="; exit 1; }
done
systemd-analyze security --offline=true --threshold=30 "$tmp/gpuletd.service" | tail -1
