/* What native code could try in a guest's place: the simulated day on which the
 * first wall, Wasm, has a hole. The suite `hostile` puts this, as it is in the
 * compiler's output, where a guest's compiled code should be. It has no library,
 * no data and no start of its own: it begins with its first instruction.
 *
 *   -DATTEMPT=0      all that may fail and go on, a line each
 *   -DATTEMPT=1...   one that must end the process
 *   -DSECRET="..."   a file of the host, -DSOCKET="..." containerd's socket
 */
#include <asm/unistd.h>

typedef unsigned long word;

#define SECTION __attribute__((section(".text.entry"), used))
#define INLINE static inline __attribute__((always_inline))

#define AT_HERE (-100)
#define READ_ONLY 0
#define CREATE 0102

INLINE long call(long number, word a, word b, word c, word d, word e, word f) {
    register word r10 __asm__("r10") = d;
    register word r8 __asm__("r8") = e;
    register word r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

static void text(const char *words) {
    word length = 0;
    while (words[length]) {
        length++;
    }
    call(__NR_write, 1, (word)words, length, 0, 0, 0);
}

static void number(long value) {
    char digits[20];
    int at = sizeof digits;
    if (value < 0) {
        text("-");
        value = -value;
    }
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    call(__NR_write, 1, (word)(digits + at), sizeof digits - (word)at, 0, 0, 0);
}

/* What must have failed, and its errno. */
static void denied(const char *what, long result) {
    text(result < 0 ? "denied " : "REACHED ");
    text(what);
    text(" ");
    number(result < 0 ? -result : result);
    text("\n");
}

static long open_at(long directory, const char *path, long flags) {
    return call(__NR_openat, (word)directory, (word)path, (word)flags, 0600, 0, 0);
}

static void files(void) {
    denied("a host's file", open_at(AT_HERE, SECRET, READ_ONLY));
    denied("a host's file from the root's parent", open_at(AT_HERE, "/../../../../.." SECRET, READ_ONLY));
    denied("a host's file by process 1", open_at(AT_HERE, "/proc/1/root" SECRET, READ_ONLY));
    denied("shadow", open_at(AT_HERE, "/etc/shadow", READ_ONLY));
    denied("its own memory", open_at(AT_HERE, "/proc/self/mem", CREATE));
    denied("a device", open_at(AT_HERE, "/dev/mem", READ_ONLY));
    denied("containerd's socket as a file", open_at(AT_HERE, SOCKET, READ_ONLY));
    denied("a file in the jail", open_at(AT_HERE, "/new", CREATE));
    denied("a file in the image", open_at(AT_HERE, "/rootfs/new", CREATE));
    denied("a device made", call(__NR_mknodat, (word)AT_HERE, (word) "/rootfs/sda", 060600, 0x800, 0, 0));
    denied("a mode", call(__NR_fchmodat, (word)AT_HERE, (word) "/rootfs", 04777, 0, 0, 0));
    denied("an owner", call(__NR_fchownat, (word)AT_HERE, (word) "/rootfs", 0, 0, 0, 0));
    denied("another directory", call(__NR_chdir, (word) "/rootfs", 0, 0, 0, 0, 0));
    /* By whatever is open. */
    for (long descriptor = 0; descriptor < 1024; descriptor++) {
        if (open_at(descriptor, "../../../../../../../.." SECRET, READ_ONLY) >= 0 ||
            open_at(descriptor, "../../../../../../../../etc/shadow", READ_ONLY) >= 0) {
            denied("a host's file by an open descriptor", descriptor);
        }
        if (descriptor > 2 && call(__NR_fchdir, (word)descriptor, 0, 0, 0, 0, 0) >= 0) {
            denied("another directory by an open descriptor", descriptor);
        }
    }
}

static void network(void) {
    denied("a raw socket", call(__NR_socket, 2, 3, 1, 0, 0, 0));
    denied("a packet socket", call(__NR_socket, 17, 3, 0, 0, 0, 0));
    denied("a netlink socket", call(__NR_socket, 16, 3, 0, 0, 0, 0));
    denied("a local socket", call(__NR_socket, 1, 1, 0, 0, 0, 0));
    denied("a machine's socket", call(__NR_socket, 40, 1, 0, 0, 0, 0));
    denied("a TCP socket", call(__NR_socket, 2, 1, 0, 0, 0, 0));
    denied("a UDP socket", call(__NR_socket, 10, 2, 0, 0, 0, 0));
    /* sockaddr_un with containerd's path, to whatever is open. */
    struct {
        unsigned short family;
        char path[108];
    } address = {1, SOCKET};
    for (long descriptor = 0; descriptor < 64; descriptor++) {
        if (call(__NR_connect, (word)descriptor, (word)&address, sizeof address, 0, 0, 0) >= 0) {
            denied("containerd's socket", descriptor);
        }
        if (call(__NR_sendto, (word)descriptor, (word) "x", 1, 0, (word)&address, sizeof address) >= 0) {
            denied("a datagram to containerd", descriptor);
        }
    }
}

static void process(void) {
    denied("a child", call(__NR_clone, 17, 0, 0, 0, 0, 0));
    denied("a child with namespaces", call(__NR_clone, 17 | 0x10000000, 0, 0, 0, 0, 0));
    denied("a child by another call", call(__NR_clone3, 0, 0, 0, 0, 0, 0));
    denied("a signal", call(__NR_tgkill, 1, 1, 9, 0, 0, 0));
    denied("a queued signal", call(__NR_rt_sigqueueinfo, 1, 9, 0, 0, 0, 0));
    denied("being dumpable", call(__NR_prctl, 4, 1, 0, 0, 0, 0));
    denied("a capability", call(__NR_prctl, 47, 2, 21, 0, 0, 0));
    word limit[2] = {~0UL, ~0UL};
    denied("another limit", call(__NR_prlimit64, 0, 7, (word)limit, 0, 0, 0));
    denied("new code", call(__NR_mmap, 0, 4096, 7, 0x22, ~0UL, 0));
    word page = (word)call(__NR_mmap, 0, 4096, 3, 0x22, ~0UL, 0);
    denied("code in a page", call(__NR_mprotect, page, 4096, 5, 0, 0, 0));
    denied("writable code", call(__NR_mprotect, (word)&text & ~4095UL, 4096, 7, 0, 0, 0));
    denied("no walls for files", call(__NR_landlock_restrict_self, ~0UL, 0, 0, 0, 0, 0));

}

SECTION void intrude(void) {
    /* That this runs at all, and may what guests may. */
    text("intruder: in\n");
    if (open_at(AT_HERE, "/rootfs/app.wasm", READ_ONLY) >= 0) {
        text("intruder: its image is there\n");
    }
    switch (ATTEMPT) {
    case 0:
        files();
        network();
        process();
        break;
    case 1:
        call(__NR_ptrace, 16, 1, 0, 0, 0, 0);
        break;
    case 2:
        call(__NR_mount, (word) "none", (word) "/rootfs", (word) "tmpfs", 0, 0, 0);
        break;
    case 3: {
        const char *arguments[] = {"/rootfs/app.wasm", 0};
        call(__NR_execve, (word)arguments[0], (word)arguments, 0, 0, 0, 0);
        break;
    }
    case 4:
        call(__NR_kill, ~0UL, 9, 0, 0, 0, 0);
        break;
    case 5:
        call(__NR_unshare, 0x10000000, 0, 0, 0, 0, 0);
        break;
    case 6:
        call(__NR_setuid, 0, 0, 0, 0, 0, 0);
        break;
    case 7:
        call(__NR_bpf, 0, 0, 0, 0, 0, 0);
        break;
    case 8:
        call(__NR_process_vm_readv, 1, 0, 0, 0, 0, 0);
        break;
    case 9:
        call(__NR_io_uring_setup, 8, 0, 0, 0, 0, 0);
        break;
    case 10:
        call(__NR_open_by_handle_at, 0, 0, 0, 0, 0, 0);
        break;
    case 11:
        /* A 32-bit call: exit(77), by the other table of numbers. */
        __asm__ volatile("int $0x80" : : "a"(1), "b"(77) : "memory");
        break;
    case 12:
        /* One of the table with 32-bit addresses. */
        call(__NR_openat | 0x40000000, (word)AT_HERE, (word) "/rootfs", 0, 0, 0, 0);
        break;
    }
    text("intruder: out\n");
    call(__NR_exit_group, 0, 0, 0, 0, 0, 0);
    __builtin_unreachable();
}
