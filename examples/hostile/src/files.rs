//! Ways out of a directory.
//!
//! Whoever runs this has put `secret` beside the directory, and into it the links
//! `host-file` (to the secret), `host-up` (to `..`), `host-absolute` and `host-proc`
//! (to absolute paths), and the file `own`.

use crate::report::Report;
use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{
    Descriptor, DescriptorFlags, ErrorCode, NewTimestamp, OpenFlags, PathFlags,
};

const FOLLOW: PathFlags = PathFlags::SYMLINK_FOLLOW;
const READ: DescriptorFlags = DescriptorFlags::READ;
const NO_FLAGS: OpenFlags = OpenFlags::empty();

/// Names of what is outside.
const OUTSIDE: [&str; 13] = [
    "..",
    "../secret",
    "./../secret",
    "inner/../../secret",
    "inner/./.././../secret",
    "../in/../secret",
    "own/../../secret",
    "/data/secret",
    "//data/secret",
    "/rootfs/data/secret",
    "/etc/passwd",
    "/proc/self/environ",
    "../../../../../../../../etc/shadow",
];

/// Names that mean something elsewhere, and are nothing here.
const ODD: [&str; 12] = [
    "..\\secret",
    "%2e%2e/secret",
    "...",
    ".../secret",
    "\u{2024}\u{2024}/secret",
    "proc/self/root/data/secret",
    "proc/1/environ",
    "dev/mem",
    "dev/fd/3",
    "sys/kernel",
    "own\0/../../secret",
    "own/",
];

/// The directory that the guest finds open as `name`.
pub fn preopen(name: &str) -> Result<Descriptor, String> {
    get_directories()
        .into_iter()
        .find(|(_, found)| found == name)
        .map(|(dir, _)| dir)
        .ok_or_else(|| format!("no directory is open as {name}"))
}

/// Opens `path` for reading, following links.
pub fn open(dir: &Descriptor, path: &str) -> Result<Descriptor, ErrorCode> {
    dir.open_at(FOLLOW, path, NO_FLAGS, READ)
}

pub fn leave(name: &str, report: &mut Report) -> Result<(), String> {
    let dir = preopen(name)?;
    for path in OUTSIDE {
        operations(&dir, path, report);
    }
    for path in ODD {
        report.attempt(format_args!("open {path:?}"), open(&dir, path));
    }
    let long = "x/".repeat(40_000) + "../secret";
    report.attempt("open a very long path", open(&dir, &long));
    for link in ["host-file", "host-up", "host-absolute", "host-proc"] {
        through(&dir, link, report);
    }
    links(&dir, report)?;
    moved(&dir, report)
}

/// All that can be done to a name.
fn operations(dir: &Descriptor, path: &str, report: &mut Report) {
    let mut attempt = |what: &str, outcome: Result<(), ErrorCode>| {
        report.attempt(format_args!("{what} {path}"), outcome)
    };
    let write = DescriptorFlags::WRITE;
    for flags in [FOLLOW, PathFlags::empty()] {
        attempt("open", dir.open_at(flags, path, NO_FLAGS, READ).map(drop));
        attempt(
            "open as a directory",
            dir.open_at(flags, path, OpenFlags::DIRECTORY, READ)
                .map(drop),
        );
        attempt(
            "open to write",
            dir.open_at(flags, path, NO_FLAGS, write).map(drop),
        );
        attempt(
            "create",
            dir.open_at(flags, path, OpenFlags::CREATE, write).map(drop),
        );
        attempt(
            "truncate",
            dir.open_at(flags, path, OpenFlags::TRUNCATE, write)
                .map(drop),
        );
        attempt("stat", dir.stat_at(flags, path).map(drop));
        attempt("hash", dir.metadata_hash_at(flags, path).map(drop));
        let now = NewTimestamp::Now;
        attempt("set times of", dir.set_times_at(flags, path, now, now));
        attempt("link here", dir.link_at(flags, path, dir, "stolen"));
    }
    attempt("read link", dir.readlink_at(path).map(drop));
    attempt("make directory", dir.create_directory_at(path));
    attempt("remove directory", dir.remove_directory_at(path));
    attempt("unlink", dir.unlink_file_at(path));
    attempt("move here", dir.rename_at(path, dir, "stolen"));
    attempt("move there", dir.rename_at("own", dir, path));
    attempt(
        "link there",
        dir.link_at(PathFlags::empty(), "own", dir, path),
    );
    attempt("symlink there", dir.symlink_at("own", path));
}

/// What follows a link that leads out.
fn through(dir: &Descriptor, link: &str, report: &mut Report) {
    let paths = [
        link.to_owned(),
        format!("{link}/"),
        format!("{link}/secret"),
        format!("{link}/../secret"),
        format!("{link}/in/../secret"),
        format!("inner/../{link}/data/secret"),
    ];
    for path in paths {
        report.attempt(format_args!("open {path}"), open(dir, &path));
        report.attempt(format_args!("stat {path}"), dir.stat_at(FOLLOW, &path));
        let created = dir.open_at(FOLLOW, &path, OpenFlags::CREATE, DescriptorFlags::WRITE);
        report.attempt(format_args!("create {path}"), created);
        let linked = dir.link_at(FOLLOW, &path, dir, "stolen");
        report.attempt(format_args!("link {path} here"), linked);
    }
}

/// Links of the guest's own making, symbolic and hard.
fn links(dir: &Descriptor, report: &mut Report) -> Result<(), String> {
    let failed = |what: &'static str| move |error: ErrorCode| format!("{what}: {error:?}");
    dir.create_directory_at("deep").map_err(failed("mkdir"))?;
    let targets = [
        "../secret",
        "..",
        "deep/../..",
        "/data/secret",
        "/data",
        "/rootfs/data",
        "/proc/self/root",
        "/",
    ];
    for (number, target) in targets.into_iter().enumerate() {
        let name = format!("link-{number}");
        // That it cannot even be made is as well.
        if let Err(error) = dir.symlink_at(target, &name) {
            report.attempt(format_args!("make a link to {target}"), Err::<(), _>(error));
            continue;
        }
        through(dir, &name, report);
        // The same link by another name, and by another link.
        let hard = format!("hard-{number}");
        if dir.link_at(PathFlags::empty(), &name, dir, &hard).is_ok() {
            through(dir, &hard, report);
        }
        let chain = format!("deep/chain-{number}");
        dir.symlink_at(&format!("../{name}"), &chain)
            .map_err(failed("symlink"))?;
        through(dir, &chain, report);
    }
    dir.symlink_at("loop", "loop").map_err(failed("symlink"))?;
    report.attempt("open a link to itself", open(dir, "loop"));
    Ok(())
}

/// A directory that is moved while it is open.
fn moved(dir: &Descriptor, report: &mut Report) -> Result<(), String> {
    let failed = |error: ErrorCode| format!("move: {error:?}");
    dir.create_directory_at("deep/a").map_err(failed)?;
    dir.create_directory_at("deep/a/b").map_err(failed)?;
    let inner = dir
        .open_at(FOLLOW, "deep/a/b", OpenFlags::DIRECTORY, READ)
        .map_err(failed)?;
    dir.rename_at("deep/a/b", dir, "b").map_err(failed)?;
    for path in ["..", "../own", "../../secret", "../../../secret"] {
        report.attempt(
            format_args!("open {path} from a moved directory"),
            open(&inner, path),
        );
    }
    Ok(())
}
