//! As much of BPF as a device program needs: its instructions, and bpf(2).

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

/// What a program keeps where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// r0: what the program answers, 1 for yes.
    Answer = 0,
    /// r1: what it is asked, at its beginning.
    Context = 1,
    /// r2: the access that is still to be allowed.
    Access = 2,
    /// r3: block or character device.
    Kind = 3,
    /// r4: the device's major number.
    Major = 4,
    /// r5: the device's minor number.
    Minor = 5,
}

/// An instruction, `struct bpf_insn` of linux/bpf.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

// Classes, sizes and operations of linux/bpf_common.h and linux/bpf.h.
const LOAD_WORD: u8 = 0x61;
const COPY: u8 = 0xbf;
const SET: u8 = 0xb7;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP: u8 = 0x05;
const JUMP_IF_NOT: u8 = 0x55;
const JUMP_IF_ANY_BIT: u8 = 0x45;
const EXIT: u8 = 0x95;

impl Instruction {
    const fn new(code: u8, to: Register, from: u8, offset: i16, immediate: i32) -> Self {
        Self {
            code,
            registers: from << 4 | to as u8,
            offset,
            immediate,
        }
    }

    /// `to = *(u32 *)(from + offset)`
    pub const fn load(to: Register, from: Register, offset: i16) -> Self {
        Self::new(LOAD_WORD, to, from as u8, offset, 0)
    }

    /// `to = from`
    pub const fn copy(to: Register, from: Register) -> Self {
        Self::new(COPY, to, from as u8, 0, 0)
    }

    /// `to = value`
    pub const fn set(to: Register, value: i32) -> Self {
        Self::new(SET, to, 0, 0, value)
    }

    /// `to &= value`
    pub const fn and(to: Register, value: i32) -> Self {
        Self::new(AND, to, 0, 0, value)
    }

    /// `to >>= value`
    pub const fn shift_right(to: Register, value: i32) -> Self {
        Self::new(SHIFT_RIGHT, to, 0, 0, value)
    }

    /// Goes on after the next `count` instructions.
    pub fn skip(count: usize) -> Self {
        Self::new(JUMP, Register::Answer, 0, distance(count), 0)
    }

    /// The same if `register` is not `value`.
    pub fn skip_if_not(register: Register, value: i32, count: usize) -> Self {
        Self::new(JUMP_IF_NOT, register, 0, distance(count), value)
    }

    /// The same if `register` has any of these bits.
    pub fn skip_if_any_bit(register: Register, bits: i32, count: usize) -> Self {
        Self::new(JUMP_IF_ANY_BIT, register, 0, distance(count), bits)
    }

    /// The end; the answer is in its register.
    pub const fn exit() -> Self {
        Self::new(EXIT, Register::Answer, 0, 0, 0)
    }
}

/// Jumps are over one rule, which is at most seven instructions.
fn distance(count: usize) -> i16 {
    i16::try_from(count).unwrap_or(i16::MAX)
}

const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_TYPE_CGROUP_DEVICE: u32 = 6;
/// systemd attaches programs of its own, and each of them must say yes.
const ALLOW_MULTI: u32 = 1 << 1;

/// The part of `union bpf_attr` that loading uses. The kernel takes what is
/// missing at its end for zero.
#[repr(C)]
struct Load {
    program_type: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// The same for attaching.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

/// Loads `program` and has the kernel ask it about every use of a device by a
/// process in the cgroup at `directory` and below, for as long as there is one.
///
/// # Errors
/// The kernel's: EPERM without CAP_BPF or CAP_SYS_ADMIN, EINVAL for a program
/// it does not believe in, and where it was built without `CGROUP_BPF`.
pub fn attach(program: &[Instruction], directory: &Path) -> io::Result<()> {
    let cgroup = File::open(directory)?;
    let loaded = load(program)?;
    let request = Attach {
        target: cgroup.as_raw_fd().cast_unsigned(),
        program: loaded.as_raw_fd().cast_unsigned(),
        attach_type: ATTACH_TYPE_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: the kernel reads `request`, whose size is given, and keeps
    // nothing of it; both descriptors are open until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROG_ATTACH,
            &raw const request,
            size_of::<Attach>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let count = u32::try_from(program.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "too many device rules"))?;
    // No function that this program calls asks for a particular licence.
    let license = c"Apache-2.0";
    let request = Load {
        program_type: PROG_TYPE_CGROUP_DEVICE,
        count,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the kernel reads `request`, whose size is given, `count`
    // instructions and a terminated string, all of which outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROG_LOAD,
            &raw const request,
            size_of::<Load>(),
        )
    };
    let descriptor = i32::try_from(result).unwrap_or(-1);
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened this descriptor for us alone (with
    // O_CLOEXEC), and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// What `program` answers, for tests of what it means.
#[cfg(test)]
pub fn run(program: &[Instruction], context: [u32; 3]) -> bool {
    let mut registers = [0u64; 16];
    let mut next = 0;
    loop {
        let Instruction {
            code,
            registers: pair,
            offset,
            immediate,
        } = program[next];
        let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
        let value = i64::from(immediate).cast_unsigned();
        let distance = usize::try_from(offset).expect("only forwards");
        next += 1;
        match code {
            LOAD_WORD => {
                assert_eq!(from, Register::Context as usize);
                registers[to] = context[distance / 4].into();
            }
            COPY => registers[to] = registers[from],
            SET => registers[to] = value,
            AND => registers[to] &= value,
            SHIFT_RIGHT => registers[to] >>= value,
            JUMP => next += distance,
            JUMP_IF_NOT if registers[to] != value => next += distance,
            JUMP_IF_ANY_BIT if registers[to] & value != 0 => next += distance,
            JUMP_IF_NOT | JUMP_IF_ANY_BIT => {}
            EXIT => return registers[0] != 0,
            other => panic!("no instruction {other:#x}"),
        }
    }
}
