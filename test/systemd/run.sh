#!/bin/bash
# make check-systemd: the installed daemon under a real systemd.
#
#     test/systemd/run.sh [--keep]
#
# Makes a minimal Debian 12, runs `make install` into it and boots it with systemd-nspawn in a
# network of its own.  A unit inside runs guest.sh, which writes its results into the tree, and
# powers off.  Exits 77 with the reason where it cannot run.
set -eu
cd "$(dirname "$0")/../.."
. test/debian.sh

RUNTIME='libmicrohttpd12 libjansson4 libsystemd0 libinih1 libdnnl2 libxxhash0 zlib1g libcurl4'
LIMIT_S=600

keep=
case $#${1-} in
0) ;;
1--keep) keep=1 ;;
*) sed -n 's/^#     //p' "$0" >&2; exit 2 ;;
esac

debian_need systemd-nspawn
# What was built here must run there.
[ "$(. /etc/os-release && echo "$ID$VERSION_ID")" = debian12 ] || skip "needs a Debian 12 host"

root=$(mktemp -d "${TMPDIR:-/var/tmp}/gpuletd-systemd.XXXXXX")
follow=
finish() {
    [ -z "$follow" ] || kill "$follow" 2>/dev/null || true
    [ -z "$keep" ] || { echo "left in $root"; return; }
    rm -rf --one-file-system "$root"
}
trap finish EXIT
trap 'exit 130' INT TERM HUP

echo "== making a minimal Debian 12 with systemd"
debian_new "$root"
# shellcheck disable=SC2086
debian_run "$root" sh -c 'exec 2>&1; export DEBIAN_FRONTEND=noninteractive
    apt-get update && apt-get install -y --no-install-recommends "$@"' - \
    systemd systemd-sysv curl $RUNTIME >"$root/install.log" ||
    { tail "$root/install.log"; skip "cannot install systemd there"; }
make install DESTDIR="$root" PREFIX=/usr >"$root/install.log" 2>&1 ||
    { cat "$root/install.log"; exit 1; }

mkdir "$root/srv/test"
cp test/systemd/guest.sh test/data/digits.onnx test/data/digits-tiny.onnx \
    test/data/digits-batch.onnx "$root/srv/test"
: >"$root/srv/test/results"
cat >"$root/etc/systemd/system/gpuletd-test.service" <<'UNIT'
[Unit]
After=multi-user.target
SuccessAction=poweroff
FailureAction=poweroff
[Service]
Type=oneshot
ExecStart=/bin/bash /srv/test/guest.sh
StandardOutput=append:/srv/test/results
StandardError=inherit
[Install]
WantedBy=default.target
UNIT
# The sockets are enabled as an administrator would; gpuletd.service is not, so that the test
# sees the first start.  The test unit is after multi-user.target, hence wanted by default.target.
systemctl --root="$root" --quiet enable gpuletd-{http,admin,unix}.socket gpuletd-test.service

echo "== booting it"
tail -f -n +1 "$root/srv/test/results" &
follow=$!
timeout --kill-after=10 "$LIMIT_S" systemd-nspawn --quiet --boot --register=no --keep-unit \
    --private-network --console=pipe --machine=gpuletd-test --directory="$root" \
    </dev/null >"$root/console.log" 2>&1 || status=$?
sleep 0.3
if ! [ -s "$root/srv/test/results" ]; then
    tail -30 "$root/console.log"
    grep -q 'Welcome to' "$root/console.log" || skip "systemd-nspawn cannot boot here"
fi
tail -1 "$root/srv/test/results" | grep -q '^[0-9]* passed, 0 failed$' || {
    echo "the test did not pass (systemd-nspawn: status ${status:-0})"
    exit 1
}
