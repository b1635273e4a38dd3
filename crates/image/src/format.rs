//! What a file is, by its first bytes.

/// How many of a file's first bytes [`Format::of`] looks at.
pub const HEAD: usize = 8;

/// Byte of an ELF header that names the operating system's ABI.
const ELF_OSABI: usize = 7;
/// The number there by which Wasmtime marks its own, native, output.
const ELF_OSABI_WASMTIME: u8 = 200;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A WebAssembly core module.
    Module,
    /// A WebAssembly component.
    Component,
    /// Native code that Wasmtime made from WebAssembly.
    Precompiled,
    /// A program for this or another processor.
    Elf,
    /// A text with the name of its interpreter.
    Script,
    /// The beginning of what could have become WebAssembly.
    Truncated,
    /// WebAssembly of a version or layer that nobody here knows.
    UnknownWasm,
    /// Anything else.
    Other,
}

impl Format {
    /// The format of a file that begins with `head`: [`HEAD`] bytes, fewer only
    /// if the file has no more.
    pub fn of(head: &[u8]) -> Self {
        match head {
            [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => Self::Module,
            [0, b'a', b's', b'm', _, _, 1, 0, ..] => Self::Component,
            [0, b'a', b's', b'm', _, _, _, _, ..] => Self::UnknownWasm,
            [0x7f, b'E', b'L', b'F', ..] => match head.get(ELF_OSABI) {
                Some(&ELF_OSABI_WASMTIME) => Self::Precompiled,
                _ => Self::Elf,
            },
            [b'#', b'!', ..] => Self::Script,
            [0] | [0, b'a'] | [0, b'a', b's'] | [0, b'a', b's', b'm', ..] => Self::Truncated,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell() {
        for (head, format) in [
            (&b"\0asm\x01\0\0\0"[..], Format::Module),
            (b"\0asm\x0d\0\x01\0", Format::Component),
            (b"\0asm\x02\0\0\0", Format::UnknownWasm),
            (b"\0asm\x01", Format::Truncated),
            (b"\0a", Format::Truncated),
            (b"\x7fELF\x02\x01\x01\0", Format::Elf),
            (b"\x7fELF\x02\x01\x01\xc8", Format::Precompiled),
            (b"\x7fELF", Format::Elf),
            (b"#!/bin/s", Format::Script),
            (b"(module)", Format::Other),
            (b"", Format::Other),
        ] {
            assert_eq!(Format::of(head), format, "{head:?}");
        }
    }
}
