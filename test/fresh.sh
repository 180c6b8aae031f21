#!/bin/bash
# make check-fresh: ./bootstrap demo and ./bootstrap check on a Debian 12 that has nothing.
#
#     test/fresh.sh [--demo] [--keep]
#
# Makes a minimal Debian 12 in a temporary folder, clones the last commit into it and runs both
# commands there.  --demo runs the first only; --keep leaves the folder for a look.
# Exits 77 with the reason where it cannot run.
set -eu
cd "$(dirname "$0")/.."
. test/debian.sh

goals='demo check' keep=
for arg; do
    case $arg in
    --demo) goals=demo ;;
    --keep) keep=1 ;;
    *) sed -n 's/^#     //p' "$0" >&2; exit 2 ;;
    esac
done

debian_need git
git rev-parse -q --verify HEAD >/dev/null || skip "needs a git checkout with a commit"

root=$(mktemp -d "${TMPDIR:-/var/tmp}/gpuletd-fresh.XXXXXX")
trap '[ -n "$keep" ] && echo "left in $root" || rm -rf --one-file-system "$root"' EXIT
trap 'exit 130' INT TERM HUP

echo "== making a minimal Debian 12"
debian_new "$root"
git clone --quiet --no-hardlinks . "$root/root/gpuletd"
[ -z "$(git status --porcelain)" ] || echo "note: changes that are not committed are not tested"

n_ok=0 n_failed=0
# expect "a sentence" COMMAND...
expect() {
    local sentence=$1 start=$SECONDS
    shift
    if "$@"; then
        n_ok=$((n_ok + 1))
        echo "ok      $sentence ($((SECONDS - start)) s)"
    else
        n_failed=$((n_failed + 1))
        echo "FAILED  $sentence ($((SECONDS - start)) s)"
    fi
}

inside() { debian_run "$root" sh -c "cd /root/gpuletd && $1"; }

no_root_says_how() {
    local said status=0
    said=$(debian_run "$root" sh -c 'chmod 755 /root && cd /root/gpuletd &&
        exec setpriv --reuid=65534 --clear-groups ./bootstrap demo' 2>&1) || status=$?
    if [ $status != 1 ] || ! grep -q '^    apt-get update && apt-get install .*gcc' <<<"$said"; then
        echo "status $status: $said"
        return 1
    fi
}

# Fails if the command leaves a process behind (PID 1 is the shell itself) or a file in /tmp.
leaves_nothing() {
    inside "$1"' && set -- /proc/[0-9]* /tmp/* &&
        [ "$*" = "/proc/1 /tmp/*" ] || { echo "status or leftovers: $*"; exit 1; }'
}

expect "without root and sudo it prints the one command and stops with 1" no_root_says_how
for goal in $goals; do
    expect "./bootstrap $goal" leaves_nothing "./bootstrap $goal"
    [ "$goal" = demo ] || continue
    expect "the demo installed no Python" inside '! command -v python3'
    expect "with the packages there, the demo takes less than three minutes" \
        leaves_nothing "make clean >/dev/null && timeout 180 ./bootstrap demo >/dev/null"
done

echo "$n_ok passed, $n_failed failed"
[ $n_failed = 0 ]
