#!/bin/bash
# Runs the examples under a private containerd, says what it does, how long the
# starts took, and proves that nothing is left running. Everything it writes is
# in a temporary directory.
set -euo pipefail
cd "$(dirname "$0")/.."
repo=$PWD
guests=$repo/target/guests
wisp=$repo/target/release/wisp
runtime=io.containerd.wisp.v1
# How often each start is measured.
rounds=5

fail() {
    echo "demo: $*" >&2
    exit 1
}
say() { echo "==> $*"; }
indent() { sed 's/^/    /'; }

[ "$(id -u)" = 0 ] || fail "containerd needs root: run it as root"
for program in containerd ctr runc curl busybox; do
    command -v "$program" >/dev/null || fail "$program is missing: run make setup"
done
for built in "$wisp" "$repo/target/release/containerd-shim-wisp-v1" "$guests/hello.wasm" "$guests/http-02.wasm"; do
    [ -e "$built" ] || fail "$built is missing: run make build examples"
done

# Short, because socket paths are limited to 107 bytes.
tmp=$(mktemp -d /tmp/wisp-demo.XXXXXX)
namespace=$(basename "$tmp")

our_mounts() { awk -v tmp="$tmp/" 'index($2, tmp) == 1 { print $2 }' /proc/self/mounts | sort -r; }
our_cgroups() { find /sys/fs/cgroup -depth -type d -path "*/$namespace*" 2>/dev/null || true; }
# Sockets of our time that nobody listens on: shims are to remove theirs.
our_sockets() {
    [ -d /run/containerd/s ] || return 0
    find /run/containerd/s -type s -newer "$tmp/containerd.toml" | while read -r socket; do
        grep -qF "$socket" /proc/net/unix || echo "$socket"
    done
}
# Containers are in our cgroups; containerd and shims carry the directory in
# their arguments or environment.
our_processes() {
    local dir pid cgroup
    for cgroup in $(our_cgroups); do cat "$cgroup/cgroup.procs" 2>/dev/null || true; done
    for dir in /proc/[0-9]*; do
        pid=${dir#/proc/}
        if [ "$pid" != $$ ] && [ "$pid" != "$BASHPID" ] &&
            grep -zqF "$tmp" "$dir/cmdline" "$dir/environ" 2>/dev/null; then
            echo "$pid"
        fi
    done
}

# ends WITHIN_SECONDS COMMAND…: waits until the command fails.
ends() {
    local deadline=$((SECONDS + $1))
    shift
    while "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.05
    done
}

clean_up() {
    local status=$? leftovers
    trap - EXIT
    trap '' INT TERM
    if [ -n "${containerd_pid:-}" ]; then
        for container in $(ctr task ls -q 2>/dev/null); do
            ctr task kill -s SIGKILL "$container" >/dev/null 2>&1 || true
            ctr task delete -f "$container" >/dev/null 2>&1 || true
        done
        for container in $(ctr container ls -q 2>/dev/null); do
            ctr container delete "$container" >/dev/null 2>&1 || true
        done
        kill "$containerd_pid" 2>/dev/null || true
        wait "$containerd_pid" 2>/dev/null || true
    fi
    # containerd makes a cgroup for its namespace and leaves it, empty.
    for cgroup in $(our_cgroups | grep "/$namespace\$"); do rmdir "$cgroup" 2>/dev/null || true; done
    ends 5 has_leftovers || true
    leftovers=$(list_leftovers)
    if [ -n "$leftovers" ]; then
        status=1
        echo "demo: left behind, and removed now:" >&2
        echo "$leftovers" | indent >&2
        for pid in $(our_processes); do kill -KILL "$pid" 2>/dev/null || true; done
        for mount in $(our_mounts); do umount -l "$mount" || true; done
        our_sockets | xargs -r rm -f
        ends 5 has_cgroups || true
    fi
    if [ "$status" = 1 ] && grep -E 'level=(warning|error|fatal)' "$tmp/containerd.log" >"$tmp/why" 2>/dev/null; then
        echo "demo: what containerd had to say:" >&2
        tail -n 15 "$tmp/why" | indent >&2
    fi
    # What runc keeps its state in has a fixed place.
    rm -rf "$tmp" "/run/containerd/runc/$namespace"
    [ "$status" != 0 ] || say "nothing is left: no process, mount, cgroup or socket, and $tmp is gone"
    exit "$status"
}
list_leftovers() {
    local pid
    for pid in $(our_processes | sort -un); do
        echo "process $pid: $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null)"
    done
    our_mounts | sed 's/^/mount /'
    our_cgroups | sed 's/^/cgroup /'
    our_sockets | sed 's/^/socket /'
}
# Tries to remove them: a cgroup is busy until its last process is reaped.
has_cgroups() {
    local cgroup
    for cgroup in $(our_cgroups); do rmdir "$cgroup" 2>/dev/null || true; done
    [ -n "$(our_cgroups)" ]
}
has_leftovers() { [ -n "$(list_leftovers)" ]; }
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

ctr() { command ctr --address "$tmp/containerd.sock" --namespace "$namespace" "$@"; }
run() { ctr run --fifo-dir "$tmp/fifo" "$@"; }

say "a private containerd in $tmp: $(containerd --version | awk '{ print $3 }')"
cat >"$tmp/containerd.toml" <<TOML
version = 2
root = "$tmp/root"
state = "$tmp/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.nri.v1.nri"]

[grpc]
address = "$tmp/containerd.sock"

[plugins."io.containerd.internal.v1.opt"]
path = "$tmp/opt"
TOML
cat >"$tmp/wisp.toml" <<TOML
[cache]
dir = "$tmp/aot"
TOML
mkdir -m 0700 "$tmp/aot"
# containerd finds the runtime's shim in its PATH; shims inherit WISP_CONFIG. A
# session of its own, so that Ctrl-C reaches this script alone.
PATH=$repo/target/release:$PATH WISP_CONFIG=$tmp/wisp.toml \
    setsid containerd --config "$tmp/containerd.toml" >"$tmp/containerd.log" 2>&1 &
containerd_pid=$!
starting() { kill -0 "$containerd_pid" && ! ctr version; }
ends 20 starting || fail "containerd did not answer"
kill -0 "$containerd_pid" 2>/dev/null || fail "containerd ended at once"
# Overlay mounts do not work on every file system a /tmp can be on.
snapshotter=overlayfs
ctr plugins ls | awk '$2 == "overlayfs" && $NF == "ok" { ok = 1 } END { exit !ok }' || snapshotter=native

say "wisp pack, ctr image import"
for name in hello http-02; do
    "$wisp" pack "$guests/$name.wasm" -t "demo/$name:latest" -o "$tmp/$name.tar"
    ctr image import --snapshotter "$snapshotter" "$tmp/$name.tar" >/dev/null
    echo "    demo/$name:latest, $(stat -c %s "$guests/$name.wasm") bytes of Wasm"
done

say "ctr run --rm --runtime $runtime demo/hello:latest hello"
code=0
run --rm --snapshotter "$snapshotter" --runtime "$runtime" demo/hello:latest hello >"$tmp/hello.out" || code=$?
indent <"$tmp/hello.out"
echo "    exit code $code"
[ "$code" = 0 ] && grep -q "hello from a component" "$tmp/hello.out" || fail "that is not what hello does"

say "the HTTP component, on a port of its own"
free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 12000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port"
}
listen=127.0.0.1:$(free_port)
run --detach --snapshotter "$snapshotter" --runtime "$runtime" --net-host \
    --env "WISP_HTTP_LISTEN=$listen" --log-uri "file://$tmp/http.log" demo/http-02:latest http
# No retry: a started server listens.
echo "    curl http://$listen/ -> $(curl -sS --fail --max-time 10 "http://$listen/")"
echo "    curl -d ping http://$listen/echo -> $(curl -sS --fail --max-time 10 -d ping "http://$listen/echo")"
curl -sS --fail --max-time 10 "http://$listen/log" >/dev/null
echo "    and its log says: $(head -n 1 "$tmp/http.log")"
ctr task kill -s SIGTERM http
runs() { ctr task ls | grep -q '^http .*RUNNING'; }
ends 15 runs || fail "the server still runs after SIGTERM"
code=0
ctr task delete http >/dev/null 2>&1 || code=$?
ctr container delete http
echo "    stopped with SIGTERM, exit code $code"
[ "$code" = 0 ] || fail "a server that is asked to stop ends with 0"

say "how long a start takes: ctr run --rm, start to end, median of $rounds in turn"
mkdir -p "$tmp/busybox/bin"
cp "$(command -v busybox)" "$tmp/busybox/bin/busybox"
milliseconds() {
    local start=${EPOCHREALTIME/./}
    "$@" >/dev/null
    echo $(((${EPOCHREALTIME/./} - start) / 1000))
}
median() { sort -n | awk '{ a[NR] = $1 } END { print a[int((NR + 1) / 2)] }'; }
with_wisp() { run --rm --snapshotter "$snapshotter" --runtime "$runtime" demo/hello:latest "$1"; }
with_runc() { run --rm --rootfs "$tmp/busybox" "$1" /bin/busybox echo hello; }
rm -rf "$tmp/aot" && mkdir -m 0700 "$tmp/aot"
echo "    wisp, hello, first start (compiles)  $(milliseconds with_wisp first) ms"
for ((round = 1; round <= rounds; round++)); do
    milliseconds with_wisp "wisp-$round" >>"$tmp/wisp.times"
    milliseconds with_runc "runc-$round" >>"$tmp/runc.times"
done
echo "    wisp, hello, later starts            $(median <"$tmp/wisp.times") ms"
echo "    runc, busybox echo                   $(median <"$tmp/runc.times") ms"
