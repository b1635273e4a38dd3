//! A target fed for a while.

use std::fs;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::Target;
use crate::mutate::{Numbers, mutated};

/// How long a target is fed.
#[derive(Debug, Clone, Copy)]
pub enum Amount {
    /// With so many inputs, the same each time.
    Inputs(usize),
    /// For so long, with others each time.
    Time(Duration),
}

/// An input that a target does not stand.
#[derive(Debug)]
pub struct Found {
    /// Where it was written to.
    pub path: PathBuf,
    /// What the target said.
    pub panic: String,
}

/// What a target is fed with first, by the files' names.
///
/// # Errors
/// Files that cannot be read, or none.
pub fn corpus(target: &Target) -> io::Result<Vec<Vec<u8>>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target.name);
    let entries: io::Result<Vec<_>> = fs::read_dir(&dir)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect();
    let mut paths = entries?;
    paths.sort();
    if paths.is_empty() {
        return Err(io::Error::other(format!(
            "{}: nothing in it",
            dir.display()
        )));
    }
    paths.iter().map(fs::read).collect()
}

/// Feeds `target` its corpus and mutations of that; what it does not stand is
/// written into `dir`. Answers how many inputs there were.
///
/// # Errors
/// The first input that it does not stand, or a corpus that cannot be read.
pub fn feed(target: &Target, amount: Amount, dir: &Path) -> io::Result<Result<usize, Found>> {
    let mut kept = corpus(target)?;
    for input in &kept {
        if let Some(found) = try_one(target, input, dir)? {
            return Ok(Err(found));
        }
    }
    let begun = Instant::now();
    let seed = match amount {
        Amount::Inputs(_) => 1,
        Amount::Time(_) => std::process::id().into(),
    };
    let mut numbers = Numbers::new(seed);
    let mut count = kept.len();
    loop {
        let enough = match amount {
            Amount::Inputs(most) => count >= most,
            Amount::Time(most) => begun.elapsed() >= most,
        };
        if enough {
            return Ok(Ok(count));
        }
        let input = &kept[numbers.below(kept.len())];
        let other = &kept[numbers.below(kept.len())];
        let input = mutated(input, other, &mut numbers);
        if let Some(found) = try_one(target, &input, dir)? {
            return Ok(Err(found));
        }
        count += 1;
        // Changes upon changes, now and then, lead further away.
        if numbers.below(50) == 0 && kept.len() < 500 {
            kept.push(input);
        }
    }
}

fn try_one(target: &Target, input: &[u8], dir: &Path) -> io::Result<Option<Found>> {
    let Err(panic) = panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input))) else {
        return Ok(None);
    };
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let panic = text.or_else(|| panic.downcast_ref::<&str>().copied());
    fs::create_dir_all(dir)?;
    let path = dir.join(format!("{}-{}", target.name, std::process::id()));
    fs::write(&path, input)?;
    Ok(Some(Found {
        path,
        panic: panic.unwrap_or("a panic without words").to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_that_is_not_stood_is_found_and_kept() {
        let target = Target {
            name: "annotations",
            run: |data| assert!(!data.contains(&0), "a zero"),
        };
        let dir = tempfile::tempdir().expect("dir");
        let found = feed(&target, Amount::Inputs(10_000), dir.path()).expect("corpus");
        let found = found.expect_err("a zero");
        assert_eq!(found.panic, "a zero");
        assert!(fs::read(found.path).expect("kept").contains(&0));
    }
}
