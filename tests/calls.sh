#!/bin/bash
# Compares the system calls that docs/security.md lets guests' processes make with
# those that they make, while suites run with the shim under strace. Fails where one
# was tried that is not listed, or one is listed that nobody made and that the
# documentation does not say of why. As root, with strace, `make build examples` done.
#   tests/calls.sh [BINARIES [SUITE…]]
#     BINARIES    where the programs are, target/release if not given: what is
#                 released has another C library, which makes other calls
#     SUITE…      which of containerd's suites; those about what guests do if not given,
#                 which takes some minutes
set -euo pipefail
cd "$(dirname "$0")/.."
binaries=$(realpath "${1:-target/release}")
shift || true
suites=("$@")
# Of the hostile ones not the sandbox's, whose guest is native code that tries what is
# not listed.
[ $# -gt 0 ] || suites=(commands: endings: files: network: http memory: pause: terminals: streams: told: policy:
    'hostile files:' 'hostile images:' 'hostile names:' 'hostile network:' 'hostile races:' 'hostile taking:')

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir "$tmp/bin" "$tmp/log"
ln -s "$binaries/wisp" "$tmp/bin/wisp"
# The tracer lives as long as what the shim leaves running. Nothing of it may stay
# in the way of who waits for the end of the shim's output.
cat >"$tmp/bin/containerd-shim-wisp-v1" <<SHIM
#!/bin/bash
case \$1 in -info | -v) exec "$binaries/containerd-shim-wisp-v1" "\$@" ;; esac
exec strace -D -ff -qq -ttt -s 0 --decode-pids=pidns -o "$tmp/log/call" "$binaries/containerd-shim-wisp-v1" "\$@" 2>/dev/null
SHIM
chmod +x "$tmp/bin/containerd-shim-wisp-v1"
for suite in "${suites[@]}"; do
    # Slower as all is, some tests may fail that do not otherwise.
    WISP_TESTS_BINARIES=$tmp/bin cargo test --quiet --release --locked -p wisp-tests --test containerd \
        -- "$suite" >"$tmp/told" 2>&1 || tail -n 20 "$tmp/told"
done

# What the documentation lists, but for what is ended; and of that, what it says is
# made by none of these.
section=$(sed -n '/^### System calls/,/^## /p' docs/security.md)
names() { grep -o '`[a-z0-9_]*`' | tr -d '`' | sort -u; }
listed=$(sed -n '1,/^\*\*Nobody/s/^| \(`.*`\) | .* |$/\1/p' <<<"$section" | names)
unseen=$(sed -n '/^#### Listed/,$s/^\* \(`[^:]*\):.*/\1/p' <<<"$section" | names)
[ -n "$listed" ] && [ -n "$unseen" ] || { echo "calls: docs/security.md has no lists" >&2; exit 1; }
# What processes call that have installed the list, from then on, and their threads,
# whose numbers are others in the container. A guest's process is a fork; one that
# executes something is native, or the compiler. Numbers are used again: whoever made
# a thread did so a moment before its first call.
made=$(find "$tmp/log" -type f -print0 | xargs -0 awk '
    FNR == 1 { pid = FILENAME; sub(/.*\./, "", pid); on = 0; born[pid] = $1 }
    $2 ~ /^[a-z0-9_]+\(/ {
        call = $2
        sub(/\(.*/, "", call)
        if (call == "execve" && / = 0$/) executes[pid] = 1
        if (on) late[pid] = late[pid] " " call
        else early[pid] = early[pid] " " call
        if (call ~ /^clone/ && match($0, / = [0-9]+/)) {
            number = substr($0, RSTART + 3, RLENGTH - 3)
            if (match($0, /[0-9]+ in strace/)) number = substr($0, RSTART, RLENGTH - 10)
            makers[number] = makers[number] " " pid ":" $1 ":" on
        }
        if (call == "seccomp" && /SECCOMP_SET_MODE_FILTER.* = 0$/) on = 1
    }
    END {
        for (number in makers) {
            count = split(makers[number], all, " ")
            for (i = 1; i <= count; i++) {
                split(all[i], maker, ":")
                age = born[number] - maker[2]
                if (!(number in born) || age < 0 || age > 5) continue
                made_by[number] = maker[1]
                if (maker[3]) thread[number] = 1
                else delete thread[number]
            }
        }
        for (pid in thread)
            if (made_by[pid] in executes) delete thread[pid]
        do {
            more = 0
            for (pid in made_by)
                if (!(pid in thread) && made_by[pid] in thread) more = thread[pid] = 1
        } while (more)
        for (pid in thread) late[pid] = early[pid] " " late[pid]
        for (pid in late) {
            if (pid in executes) continue
            count = split(late[pid], calls, " ")
            for (i = 1; i <= count; i++) print calls[i], pid
        }
    }')
guests=$(awk '{ print $2 }' <<<"$made" | sort -u | wc -l)
[ "$guests" -gt 0 ] || { echo "calls: no guest was seen" >&2; exit 1; }
made=$(awk '{ print $1 }' <<<"$made" | sort -u)
echo "$guests processes and threads of guests made $(wc -l <<<"$made") calls"
none=$(comm -23 <(echo "$listed") <(echo "$made"))
untold=$(comm -23 <(echo "$none") <(echo "$unseen"))
unlisted=$(comm -13 <(echo "$listed") <(echo "$made"))
echo "listed: $(wc -l <<<"$listed"); made by none: $(tr '\n' ' ' <<<"$none")"
echo "of those, not said why: $(tr '\n' ' ' <<<"$untold")"
echo "tried, and not listed: $(tr '\n' ' ' <<<"$unlisted")"
[ -z "$untold$unlisted" ]
