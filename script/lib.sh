# What the scripts share. Source it; the working directory becomes the repository's root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Installs those of the named Debian packages that are missing; as root, or with sudo.
need() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    local as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    echo "Installing: ${missing[*]}" >&2
    "${as_root[@]}" apt-get update -q >&2
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" >&2
}

BUILD_PACKAGES=(gcc libc6-dev meson ninja-build pkg-config libuv1-dev node-llhttp libsqlite3-dev
    libsodium-dev libhiredis-dev libssl-dev)

# Builds into the directory $1 with the further meson options; quiet unless it fails.
build_in() {
    local dir=$1 log
    shift
    log=$(mktemp)
    if ! { { [ -f "$dir/build.ninja" ] || meson setup "$dir" "$@"; } && ninja -C "$dir"; } >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        return 1
    fi
    rm -f "$log"
}
