# Minimal Debian 12 trees for fresh.sh and systemd/run.sh, which source this file.
#
# The base tree and the packages are kept in ${XDG_CACHE_HOME:-~/.cache}/gpuletd.  Where packages
# come from, keys, certificates and proxies are the host's, copied in when a tree is made.
# shellcheck shell=bash

debian_cache=${XDG_CACHE_HOME:-$HOME/.cache}/gpuletd
debian_keep_days=30

skip() { echo "skipped: $*"; exit 77; }

debian_need() {
    local tool
    [ "$(id -u)" = 0 ] || skip "needs root"
    for tool in debootstrap unshare "$@"; do
        [ -x "$(PATH=$PATH:/usr/sbin:/sbin command -v "$tool")" ] || skip "needs $tool"
    done
    unshare --mount --pid --fork true 2>/dev/null || skip "may not make a mount namespace here"
}

# debian_new DIR: a minimal Debian 12 in the empty folder DIR.
debian_new() {
    local base=$debian_cache/debian12.tar mirror
    mkdir -p "$debian_cache/archives/partial"
    # One run at a time keeps its packages; another one meanwhile fetches its own.
    debian_archives=$debian_cache/archives
    exec 9>"$debian_cache/lock"
    flock -n 9 || { debian_archives=$1/var/cache/apt/archives; mkdir -p "$debian_archives/partial"; }
    if [ -z "$(find "$base" -mtime -$debian_keep_days 2>/dev/null)" ]; then
        # shellcheck disable=SC2016
        mirror=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 2>/dev/null |
            awk '$1 == "bookworm" { print $2; exit }')
        debootstrap --variant=minbase --cache-dir="$debian_archives" bookworm "$1" ${mirror:+"$mirror"} \
            >"$debian_cache/debootstrap.log" 2>&1 ||
            { tail "$debian_cache/debootstrap.log"; skip "debootstrap failed"; }
        tar -C "$1" --numeric-owner --exclude='./var/cache/apt/archives/*.deb' -cf "$base.$$" .
        mv "$base.$$" "$base"
    else
        tar -C "$1" --numeric-owner -xf "$base"
    fi
    chmod 755 "$1" # mktemp's 0700 would lock every user but root out of /
    debian_settings "$1"
}

# The host's ways to the packages, as far as it has any.
debian_settings() {
    local path
    for path in /etc/apt/{sources.list.d,auth.conf,auth.conf.d,keyrings,trusted.gpg,trusted.gpg.d} \
        /usr/share/keyrings /etc/apt/sources.list /etc/resolv.conf /etc/hosts /etc/pip.conf; do
        [ -e "$path" ] || continue
        rm -rf "${1:?}$path"
        cp -rL "$path" "$1$path"
    done
    [ -e /etc/apt/sources.list ] || rm -f "$1/etc/apt/sources.list"
    apt-config dump | grep -E '^Acquire::(http|https|Check|ForceIP|Retries)' \
        >"$1/etc/apt/apt.conf.d/00host" || true
    path=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
    [ ! -e "$path" ] || cp -L "$path" "$1/etc/host-certificates.crt"
}

# debian_run DIR COMMAND...: runs it inside, with no stdin, no locale and none of the host's
# environment but its proxies and package index.  Its own mount and process namespace: whatever
# it mounts or leaves running is gone with it.
debian_run() {
    local dir=$1 pass name
    shift
    pass=(PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb)
    for name in $(compgen -e | grep -iE '^(https?|ftp|no|all)_proxy$|^PIP_(EXTRA_)?INDEX_URL$|^PIP_TRUSTED_HOST$'); do
        pass+=("$name=${!name}")
    done
    if [ -e "$dir/etc/host-certificates.crt" ]; then
        for name in SSL_CERT_FILE PIP_CERT REQUESTS_CA_BUNDLE CURL_CA_BUNDLE; do
            pass+=("$name=/etc/host-certificates.crt")
        done
    fi
    # shellcheck disable=SC2016
    env -i "${pass[@]}" unshare --mount --pid --fork --kill-child bash -c '
        set -e
        dir=$1 archives=$2
        shift 2
        mount -t proc proc "$dir/proc"
        mount -t sysfs -o ro sysfs "$dir/sys"
        mount --rbind /dev "$dir/dev"
        mount -t tmpfs tmpfs "$dir/tmp"
        mount --bind "$archives" "$dir/var/cache/apt/archives"
        exec chroot "$dir" "$@"' - "$dir" "$debian_archives" "$@" </dev/null
}
