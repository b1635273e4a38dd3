//! Which place in its container's ledger a guest's process has.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};

use wisp_engine::ledger::{LedgerFile, PLACES};

use crate::error::ContainerError;

/// The place of a container's first process.
pub(crate) const FIRST: usize = 0;

/// A container's ledger, and who has a place in it. Clones are the same.
#[derive(Clone, Debug)]
pub struct Shares(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    file: LedgerFile,
    /// Of further processes, by their place less one: whether one has it.
    taken: Mutex<Vec<bool>>,
}

/// The place of a further process. To be dropped when that has ended: what the
/// process had is given back then.
#[derive(Debug)]
pub struct Share {
    of: Shares,
    number: usize,
}

impl Shares {
    /// Those of a new container.
    ///
    /// # Errors
    /// When there is no memory or descriptor.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Shared {
            file: LedgerFile::create()?,
            taken: Mutex::default(),
        })))
    }

    /// A place for a further process.
    ///
    /// # Errors
    /// When as many have one as there are.
    pub fn take(&self) -> Result<Share, ContainerError> {
        let mut taken = self.taken();
        let free = taken.iter().position(|taken| !taken);
        let index = free.unwrap_or(taken.len());
        let number = index + 1;
        if number >= PLACES {
            return Err(ContainerError::Unsupported(format!(
                "more than {} further processes at once",
                PLACES - 1
            )));
        }
        match taken.get_mut(index) {
            Some(taken) => *taken = true,
            None => taken.push(true),
        }
        drop(taken);
        Ok(Share {
            of: self.clone(),
            number,
        })
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, Vec<bool>> {
        // Each change is a single one, whoever panicked.
        (self.0.taken.lock()).unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Shares {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.file.as_fd()
    }
}

impl Share {
    /// Which it is.
    pub(crate) fn number(&self) -> usize {
        self.number
    }
}

impl AsFd for Share {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.of.as_fd()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Err(error) = self.of.0.file.clear(self.number) {
            log::warn!("place {} of a ledger: {error}", self.number);
        }
        if let Some(taken) = self.of.taken().get_mut(self.number - 1) {
            *taken = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use wisp_engine::ledger::Ledger;

    use super::*;

    #[test]
    fn a_place_is_ones_own_and_then_free_and_empty() {
        let shares = Shares::new().expect("shares");
        let first = Ledger::join(&shares, FIRST).expect("joined");
        first.begin(0);
        let (one, two) = (shares.take().expect("one"), shares.take().expect("two"));
        assert_eq!((one.number(), two.number()), (1, 2));
        Ledger::join(&one, one.number()).expect("joined").begin(7);
        Ledger::join(&two, two.number()).expect("joined").begin(50);
        assert_eq!(first.others(), 57);
        drop(one);
        assert_eq!(first.others(), 50);
        assert_eq!(shares.take().expect("the same again").number(), 1);
    }

    #[test]
    fn there_are_so_many_and_no_more() {
        let shares = Shares::new().expect("shares");
        let all: Vec<_> = (1..PLACES).map(|_| shares.take().expect("one")).collect();
        let error = shares.take().expect_err("no more").to_string();
        assert!(error.contains("4094"), "{error}");
        drop(all);
        assert_eq!(shares.take().expect("one").number(), 1);
    }
}
