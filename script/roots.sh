# Bare roots of Debian, for the scripts that prove something in one. Source it after lib.sh. It needs root.
#
# With LONGLINE_ROOTS=DIR, what debootstrap leaves is kept there as SUITE.tar, and used again.

# Where this machine gets the packages of a suite from: mirror SUITE DEFAULT.
mirror() {
    local here uri
    here=$(. /etc/os-release && echo "$VERSION_CODENAME")
    uri=$(apt-get indextargets --format '$(SUITE) $(REPO_URI)' 'Created-By: Packages' |
        awk -v suite="$here$1" '$1 == suite {print $2; exit}')
    echo "${uri:-$2}"
}

# What of this machine's network a program needs to know there.
copy_network() {
    cp /etc/resolv.conf /etc/hosts "$1/etc/"
    apt-config dump | grep -E '^Acquire::(https?::|ftp::|Check-|Retries)' >"$1/etc/apt/apt.conf.d/90host" || true
    if [ -n "$(ls /usr/local/share/ca-certificates 2>/dev/null)" ]; then
        mkdir -p "$1/usr/local/share/ca-certificates"
        cp /usr/local/share/ca-certificates/*.crt "$1/usr/local/share/ca-certificates/"
    fi
}

# The sources of a suite of Debian, in the form of sources.list.
sources() {
    local main security
    main=$(mirror "" http://deb.debian.org/debian)
    security=$(mirror -security http://deb.debian.org/debian-security)
    printf 'deb %s %s main\n' "$main" "$1" "$main" "$1-updates" "$security" "$1-security"
}

# Makes a minimal Debian: make_root SUITE DIRECTORY.
make_root() {
    local kept=${LONGLINE_ROOTS:+$LONGLINE_ROOTS/$1.tar}
    mkdir -p "$2"
    if [ -n "$kept" ] && [ -f "$kept" ]; then
        tar -C "$2" -xpf "$kept"
    else
        debootstrap --variant=minbase "$1" "$2" "$(mirror "" http://deb.debian.org/debian)"
        [ -z "$kept" ] || { tar -C "$2" -cf "$kept.part" . && mv "$kept.part" "$kept"; }
    fi
    chmod 755 "$2" # or nobody but root can use it
    sources "$1" >"$2/etc/apt/sources.list"
    copy_network "$2"
}

# What a kernel and an init give a machine, and a directory does not have.
mount_devices() {
    local device
    mount -t proc proc "$1/proc"
    mount -t tmpfs -o mode=755 tmpfs "$1/dev"
    for device in null zero full random urandom tty; do
        touch "$1/dev/$device"
        mount --bind "/dev/$device" "$1/dev/$device"
    done
    mkdir "$1/dev/shm" "$1/dev/pts"
    mount -t tmpfs -o mode=1777 tmpfs "$1/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=666 devpts "$1/dev/pts"
    ln -s pts/ptmx "$1/dev/ptmx"
    ln -s /proc/self/fd "$1/dev/fd"
}

# in_root DIRECTORY COMMAND…: as root there, with nothing of this environment but its proxies.
in_root() {
    chroot "$1" /usr/bin/env -i HOME=/root TERM=dumb DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        ${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} \
        ${no_proxy:+no_proxy="$no_proxy"} "${@:2}" </dev/null
}

# install_in DIRECTORY PACKAGE…
install_in() {
    in_root "$1" apt-get update -q
    in_root "$1" apt-get install -q -y --no-install-recommends "${@:2}"
}

# Runs `SCRIPT --in-box DIRECTORY ARGUMENT…` with mounts and process ids of its own: when its first process ends,
# whatever it mounted and started is gone. in_box SECONDS SCRIPT ARGUMENT…
in_box() {
    local status=0
    box_work=$(mktemp -d) box_pid=
    trap '[ -z "$box_pid" ] || kill -KILL "$box_pid" 2>/dev/null || true; wait; rm -rf --one-file-system "$box_work"' EXIT
    trap 'exit 130' INT TERM HUP
    # bash as process 1, for it reaps orphans; timeout does not.
    unshare --mount --pid --mount-proc --fork --kill-child \
        bash -c 'timeout --signal=KILL "$@" & wait $!' box "$1" "$2" --in-box "$box_work" "${@:3}" &
    box_pid=$!
    wait "$box_pid" || status=$?
    box_pid=
    rm -rf --one-file-system "$box_work"
    return "$status"
}

exec 3>&2 # where a failure is said, wherever it happens

# The steps of a proof, on standard output; what they run says it in $work/log, which a failure shows.
step() { printf '%s %s\n' "$(date -u +%H:%M:%S)" "$*"; }

fail() {
    trap - ERR
    printf 'FAILED: %s\n' "$*" >&3
    tail -n 40 "$work/log" >&3 || true
    exit 1
}

logged() { "$@" >>"$work/log" 2>&1; }

# Serves alone on a network of its own: serve_alone COMMAND…, which must listen on port 3000. Leaves its id in $server.
serve_alone() {
    unshare --net bash -c 'ip link set lo up && exec "$@"' bash "$@" >>"$work/log" 2>&1 &
    server=$!
    until ask -o /dev/null http://localhost:3000/-/health; do
        kill -0 "$server" 2>/dev/null || fail "it ended before it served: $*"
        sleep 0.1
    done
}

# curl on the network of $server.
ask() { nsenter --target "$server" --net curl -sS --max-time 30 "$@" 2>>"$work/log"; }

# A push and a poll of a new server; then SIGTERM, which must end it well.
prove_served() {
    local answer
    answer=$(ask -d '{"hello":"world"}' http://localhost:3000/proof)
    [ "$answer" = OK ] || fail "a push: $answer"
    answer=$(ask http://localhost:3000/proof)
    [ "$answer" = '{"ok":true,"ts":1,"updates":[{"hello":"world"}]}' ] || fail "a poll: $answer"
    stop_server
}

stop_server() {
    local status=0
    kill -TERM "$server"
    wait "$server" || status=$?
    [ "$status" -eq 0 ] || fail "SIGTERM: exit $status"
}
