#!/usr/bin/env bash
# packages.sh GROUP: sees to the system tools that GROUP (demo, test, bench, image) needs; the list is packages.txt.
# Exit 0: all there. As root on Debian and its kin it installs what is missing; elsewhere it says what is missing,
# how to get it, and exits 1. It never upgrades a tool that is already there.
set -euo pipefail

group=${1:?usage: packages.sh demo|test|bench|image}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# mkfs and losetup live where a plain user's PATH does not look.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

missing() { # prints the packages of the group whose command is not there, one a line
    local groups command package _why
    while read -r groups command package _why; do
        case $groups in '' | '#'*) continue ;; esac
        case ",$groups," in *",$group,"*) ;; *) continue ;; esac
        command -v "$command" >/dev/null || printf '%s\n' "$package"
    done <"$here/packages.txt" | sort -u
}

awk -v g="$group" '!/^#/ && index("," $1 ",", "," g ",") { found = 1 } END { exit !found }' "$here/packages.txt" || {
    echo "packages.sh: no group '$group' in packages.txt (demo, test, bench, image)" >&2
    exit 2
}

mapfile -t packages < <(missing)
[ "${#packages[@]}" -gt 0 ] || exit 0

apt_install() {
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 -qq -y --no-install-recommends \
        install "${packages[@]}" </dev/null >&2
}

if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo "packages.sh: installing for '$group': ${packages[*]}" >&2
    # The package lists of a fresh machine are empty or stale; ask for new ones only if the first try fails.
    apt_install 2>/dev/null || { apt-get -qq update </dev/null >&2 && apt_install; } || true
    mapfile -t packages < <(missing)
    [ "${#packages[@]}" -gt 0 ] || exit 0
fi

{
    echo "packages.sh: missing for '$group': ${packages[*]}"
    if command -v apt-get >/dev/null; then
        echo "  get them with: sudo apt-get install --no-install-recommends ${packages[*]}"
    else
        echo "  these are Debian's names; install what your distribution calls them"
    fi
} >&2
exit 1
