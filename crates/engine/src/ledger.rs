//! What the guests of one container have, in sum.
//!
//! Each guest of a container is a process: its first one, and those that are
//! executed in it. They share one page of memory in which each has a place, where
//! it writes how much it has; what the others have it reads. The daemon makes the
//! page, says which place is whose, and empties the place of a process that has
//! ended, however that was: a guest that is killed gives nothing back itself.
//!
//! Nobody outside of the container reads the page. Whoever gets out of Wasm can
//! write what it likes in there, and so have its container's guests refused
//! memory, or killed by the kernel at their container's limit.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap};

/// The first word says below which place all are that were ever taken; then
/// come the places.
const WORDS: usize = 4096;
const WORD: usize = size_of::<AtomicU64>();
const BYTES: usize = WORDS * WORD;

/// How many guests a container can have at once.
pub const PLACES: usize = WORDS - 1;

/// The page of a container, as its daemon has it.
#[derive(Debug)]
pub struct LedgerFile(File);

impl LedgerFile {
    /// A new one, in which nobody has anything: memory of 32 KiB, of which there
    /// is as much as is used.
    ///
    /// # Errors
    /// When there is no memory or descriptor.
    pub fn create() -> io::Result<Self> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = File::from(memfd_create("wisp-ledger", flags)?);
        file.set_len(BYTES as u64)?;
        // Who maps it can rely on it.
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        Ok(Self(file))
    }

    /// Empties a place, whose process must have ended.
    ///
    /// # Errors
    /// When there is no such place.
    pub fn clear(&self, place: usize) -> io::Result<()> {
        if place >= PLACES {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.0.write_all_at(&[0; WORD], ((place + 1) * WORD) as u64)
    }
}

impl AsFd for LedgerFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The same as one of the guests' processes has it.
#[derive(Debug)]
pub struct Ledger {
    words: Words,
    place: usize,
}

#[derive(Debug)]
enum Words {
    Own([AtomicU64; 2]),
    /// For as long as the process lives.
    Shared(&'static [AtomicU64]),
}

impl Ledger {
    /// Of a guest that is the only one.
    pub fn own() -> Self {
        Self {
            words: Words::Own([AtomicU64::new(1), AtomicU64::new(0)]),
            place: 0,
        }
    }

    /// That of `file`, a [`LedgerFile`]'s, of which `place` is this process's.
    /// The file is not needed any more then.
    ///
    /// # Errors
    /// When it is not such a file, has no such place, or the kernel refuses.
    pub fn join(file: impl AsFd, place: usize) -> io::Result<Self> {
        // What is mapped must never become shorter.
        let seals = fcntl(&file, FcntlArg::F_GET_SEALS)?;
        let length = nix::sys::stat::fstat(&file)?.st_size;
        let is_sealed = seals & SealFlag::F_SEAL_SHRINK.bits() != 0;
        if !is_sealed || length != BYTES as i64 || place >= PLACES {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let length = NonZeroUsize::MIN.saturating_add(BYTES - 1);
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping where the kernel likes; nothing else is touched.
        let mapped = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, file, 0) }?;
        let words: NonNull<AtomicU64> = mapped.cast();
        // SAFETY: as many words are mapped, on a page's boundary, for as long as
        // this process lives: nothing unmaps them, and the file was just seen to be
        // sealed against becoming shorter. All processes use them as atomics only,
        // but for the daemon, which writes where no process is left that would.
        let words = unsafe { slice::from_raw_parts(words.as_ptr(), WORDS) };
        Ok(Self {
            words: Words::Shared(words),
            place,
        })
    }

    fn words(&self) -> &[AtomicU64] {
        match &self.words {
            Words::Own(words) => words,
            Words::Shared(words) => words,
        }
    }

    fn taken(&self) -> &AtomicU64 {
        &self.words()[self.place + 1]
    }

    /// Whether others were there before.
    pub fn is_further(&self) -> bool {
        self.place > 0
    }

    /// Takes the place, with so many bytes.
    pub fn begin(&self, bytes: u64) {
        self.taken().store(bytes, SeqCst);
        self.words()[0].fetch_max(self.place as u64 + 1, SeqCst);
    }

    /// The bytes that this process has.
    pub fn used(&self) -> u64 {
        self.taken().load(SeqCst)
    }

    /// The bytes that all others have.
    pub fn others(&self) -> u64 {
        let words = self.words();
        let places = usize::try_from(words[0].load(SeqCst)).unwrap_or(PLACES);
        (words[1..].iter().take(places).enumerate())
            .filter(|(place, _)| *place != self.place)
            .fold(0, |sum, (_, word)| sum.saturating_add(word.load(SeqCst)))
    }

    /// Changes what this process has.
    ///
    /// # Errors
    /// What it has by now, if that is not `from` any more.
    pub fn change(&self, from: u64, to: u64) -> Result<(), u64> {
        self.taken()
            .compare_exchange_weak(from, to, SeqCst, SeqCst)
            .map(drop)
    }

    /// Gives bytes back that this process has.
    pub fn give_back(&self, bytes: u64) {
        self.taken().fetch_sub(bytes, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_and_sees_the_others() {
        let file = LedgerFile::create().expect("file");
        let places = [0, 1, 7, PLACES - 1];
        let all = places.map(|place| Ledger::join(&file, place).expect("joined"));
        for (bytes, ledger) in [1, 10, 100, 1000].into_iter().zip(&all) {
            ledger.begin(bytes);
        }
        let used = all.each_ref().map(Ledger::used);
        assert_eq!(used, [1, 10, 100, 1000]);
        let others = all.each_ref().map(Ledger::others);
        assert_eq!(others, [1110, 1101, 1011, 111]);
        assert_eq!(all[1].change(9, 20), Err(10));
        while all[1].change(10, 20).is_err() {}
        all[3].give_back(600);
        assert_eq!(all[0].others(), 520);
    }

    #[test]
    fn what_a_process_had_that_was_killed_is_given_back_by_its_daemon() {
        let file = LedgerFile::create().expect("file");
        let (first, further) = (Ledger::join(&file, 0), Ledger::join(&file, 1));
        let (first, further) = (first.expect("joined"), further.expect("joined"));
        first.begin(0);
        further.begin(1 << 30);
        assert_eq!(first.others(), 1 << 30);
        file.clear(1).expect("cleared");
        assert_eq!(first.others(), 0);
        assert!(file.clear(PLACES).is_err());
    }

    #[test]
    fn nonsense_in_the_page_is_a_number_like_any_other() {
        let file = LedgerFile::create().expect("file");
        let ledger = Ledger::join(&file, 1).expect("joined");
        ledger.begin(0);
        file.0.write_all_at(&[0xff; 64], 0).expect("write");
        assert_eq!(ledger.others(), u64::MAX);
        file.0.write_all_at(&[0; BYTES], 0).expect("write");
        ledger.give_back(1);
        assert_eq!((ledger.others(), ledger.used()), (0, u64::MAX));
    }

    #[test]
    fn a_file_that_could_become_shorter_is_not_mapped() {
        let file = tempfile::tempfile().expect("file");
        file.set_len(BYTES as u64).expect("length");
        assert!(Ledger::join(&file, 0).is_err());
        let file = memfd_create("x", MFdFlags::MFD_ALLOW_SEALING).expect("file");
        let file = File::from(file);
        file.set_len(BYTES as u64).expect("length");
        assert!(Ledger::join(&file, 0).is_err());
        let file = LedgerFile::create().expect("file");
        assert!(file.0.set_len(0).is_err());
        assert!(Ledger::join(&file, PLACES).is_err());
    }

    #[test]
    fn alone_there_are_no_others() {
        let own = Ledger::own();
        own.begin(5);
        assert_eq!((own.used(), own.others(), own.is_further()), (5, 0, false));
    }
}
