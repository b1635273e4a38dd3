#!/bin/bash
# A cluster of one node on this machine, and what users do with wisp in it: what
# `make test-kubernetes` does.
#
#   FILTER   only tests whose names contain this
#
# The node is made of namespaces: its processes, network, mounts and cgroups are none
# of the machine's, and its root directory has of the machine's files only those that
# programs need, to be read. All of it ends with this script. What its servers said is
# in target/kubernetes/ afterwards.
set -euo pipefail
cd "$(dirname "$0")/../.."

repo=$PWD
logs=$repo/target/kubernetes
fail() {
    echo "test-kubernetes: $*" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || fail "a node needs root"
for program in unshare pivot_root ip iptables busybox jq cc; do
    command -v "$program" >/dev/null || fail "$program is missing: run \`make setup\`"
done
tests/get-kubernetes.sh
tests/get-containerd-2.1.sh
tests/get-helm.sh
suite=$(cargo test --release --locked -p wisp-tests --test kubernetes --no-run 2>&1 |
    tee /dev/stderr | sed -n 's/.*Executable .*(\(.*\))$/\1/p')
suite=$repo/$suite
[ -x "$suite" ] || fail "cargo built no suite"

# On a disk: containerd's snapshots are overlays, which a node's root is not fit for.
work=$(mktemp -d "${TMPDIR:-/var/tmp}/wisp-kubernetes.XXXXXX")
rm -rf "$logs"
mkdir -p "$work/root" "$work/disk" "$logs"
scripts/image.sh "${WISP_TESTS_BINARIES:-target/release}" "$work/disk/installer.tar"
cc -static -Os -s -o "$work/disk/pause" tests/pause.c

# The node's part of each hierarchy of cgroups.
group=wisp-kubernetes-$$
groups=()
for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/*/; do
    [ -e "$hierarchy/cgroup.procs" ] && groups+=("${hierarchy%/}/$group")
done
remove_groups() {
    local group
    for group in "${groups[@]}"; do
        [ ! -d "$group" ] || find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || return 1
    done
}
clean_up() {
    local status=$?
    trap - EXIT
    trap '' INT TERM
    if [ -n "${node:-}" ]; then
        kill -KILL "$node" 2>/dev/null || true
        wait "$node" 2>/dev/null || true
    fi
    local tries=0
    until remove_groups; do
        tries=$((tries + 1))
        if [ "$tries" -gt 100 ]; then
            echo "test-kubernetes: cgroups are left: ${groups[*]}" >&2
            [ "$status" != 0 ] || status=1
            break
        fi
        sleep 0.1
    done
    rm -rf "$work"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

for made in "${groups[@]}"; do
    mkdir "$made"
    # cpuset has nothing in a new group, and nobody may be where nothing is.
    for file in cpuset.cpus cpuset.mems; do
        [ ! -e "$made/$file" ] || cat "$(dirname "$made")/$file" >"$made/$file"
    done
done
(
    for made in "${groups[@]}"; do echo "$BASHPID" >"$made/cgroup.procs"; done
    # Process 1 of the node, with whose end all others of it end.
    exec setpriv --pdeathsig KILL unshare --mount --pid --net --uts --ipc --cgroup --fork --kill-child \
        --propagation private "$repo/tests/kubernetes/node.sh" "$repo" "$work" "$suite" ${FILTER:+"$FILTER"}
) </dev/null &
node=$!
wait "$node" || status=$?
unset node
exit "${status:-0}"
