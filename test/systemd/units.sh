#!/bin/bash
# The unit files are correct and the sandbox is tight; needs no running systemd.
set -eu
cd "$(dirname "$0")/../.."

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
# Before `make install` there is no /usr/sbin/gpuletd to find.
for unit in systemd/*.service systemd/*.socket; do
    sed "s|/usr/sbin/gpuletd|$PWD/build/gpuletd|" "$unit" >"$tmp/${unit##*/}"
done
systemd-analyze verify --man=no "$tmp"/*.* 2>"$tmp/log" || { cat "$tmp/log"; exit 1; }
[ ! -s "$tmp/log" ] || { cat "$tmp/log"; exit 1; }
systemd-analyze security --offline=true --threshold=30 "$tmp/gpuletd.service" | tail -1
