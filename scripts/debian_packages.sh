#!/usr/bin/env bash
# Makes sure that Debian packages are there: installs the missing ones as root, else names the one line to run.
set -euo pipefail

missing=()
for package in "$@"; do
    if ! dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed; then
        missing+=("$package")
    fi
done
[ "${#missing[@]}" -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
    # Not Debian: the tools and libraries may still be there under other package names.
    for package in "${missing[@]}"; do
        command -v "$package" >/dev/null || ldconfig -p | grep -q "^\s*${package%%[0-9]*}\.so" || { echo "needed but not found: $package" >&2; exit 1; }
    done
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "missing Debian packages; run: sudo apt-get install --yes ${missing[*]}" >&2
    exit 1
fi
apt-get update --quiet=2
DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 "${missing[@]}"
