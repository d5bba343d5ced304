# What the scripts share. Source it; the working directory becomes the repository's root.
set -Eeuo pipefail
trap 'echo "$0 stopped: ${BASH_SOURCE[0]}, line $LINENO: $BASH_COMMAND" >&2' ERR
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PATH:/usr/sbin:/sbin" # where nginx and haproxy are, and where an ordinary user does not look

is_installed() {
    dpkg-query -W -f='${Status}\n' "$1" 2>/dev/null | grep -qx 'install ok installed'
}

# Whether this release of Debian has the package.
is_known() {
    is_installed "$1" || apt-cache show "$1" >/dev/null 2>&1
}

# The package to install for "a|b": the first one that is known.
choose() {
    local package
    for package in ${1//|/ }; do
        if is_known "$package"; then
            break
        fi
    done
    echo "$package"
}

# Installs those of the named Debian packages that are missing; as root, or with sudo.
need() {
    local missing=() as_root=() package
    for package in "$@"; do
        is_installed "$(choose "$package")" || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update -q >&2
    mapfile -t missing < <(for package in "${missing[@]}"; do choose "$package"; done)
    echo "Installing: ${missing[*]}" >&2
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" >&2
}

BUILD_PACKAGES=(gcc libc6-dev meson ninja-build pkg-config libuv1-dev "libllhttp-dev|node-llhttp" libsqlite3-dev
    libsodium-dev libxxhash-dev libhiredis-dev libssl-dev liburing-dev libcurl4-openssl-dev zlib1g-dev libseccomp-dev)
# The same versions on every Debian, or they disagree about the same source.
CLANG_FORMAT=clang-format-19
CLANG_TIDY=clang-tidy-19

# Runs a command, and shows what it said only if it fails.
quietly() {
    local log status=0
    log=$(mktemp)
    "$@" >"$log" 2>&1 || status=$?
    if [ "$status" -ne 0 ]; then
        cat "$log" >&2
        echo "FAILED: $*" >&2
    fi
    rm -f "$log"
    return "$status"
}

# Builds the programs into the directory $1 with the further meson options; anew, if it was built with others.
build_in() {
    [ "$(cat "$1/options" 2>/dev/null)" = "${CC:-} $*" ] || rm -rf "$1"
    if [ ! -f "$1/build.ninja" ]; then
        quietly meson setup "$@"
        echo "${CC:-} $*" >"$1/options"
    fi
    quietly ninja -C "$1" programs
}

# What most tests run: build-asan, with sanitizers that stop at a fault, and counters (script/coverage).
build_asan() {
    need "${BUILD_PACKAGES[@]}" libcmocka-dev clang-19 libclang-rt-19-dev llvm-19
    CC=clang-19 build_in build-asan --buildtype=debugoptimized --optimization=1 -Db_lundef=false -Db_sanitize=address,undefined -Dcoverage=true
}

# Installs what the tests need from npm.
need_node_modules() {
    command -v npm >/dev/null || need npm
    [ tests/node_modules/.package-lock.json -nt tests/package-lock.json ] ||
        quietly npm --prefix tests ci --no-audit --no-fund
}
