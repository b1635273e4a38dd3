//! Changes to what is there to be read.

use crate::files::{open, preopen};
use crate::report::Report;
use wasip2::filesystem::types::{DescriptorFlags, NewTimestamp, OpenFlags, PathFlags};

/// `name` has the file `own` in it; `other` may be written to.
pub fn change(name: &str, other: &str, report: &mut Report) -> Result<(), String> {
    let dir = preopen(name)?;
    let other = preopen(other)?;
    let none = PathFlags::empty();
    let (write, read) = (DescriptorFlags::WRITE, DescriptorFlags::READ);
    for (what, open_flags, flags) in [
        ("open to write", OpenFlags::empty(), write),
        (
            "open to change",
            OpenFlags::empty(),
            read | DescriptorFlags::MUTATE_DIRECTORY | write,
        ),
        ("truncate", OpenFlags::TRUNCATE, write),
        ("truncate by reading", OpenFlags::TRUNCATE, read),
        ("replace", OpenFlags::CREATE | OpenFlags::TRUNCATE, write),
    ] {
        report.attempt(what, dir.open_at(none, "own", open_flags, flags));
    }
    let created = dir.open_at(none, "new", OpenFlags::CREATE | OpenFlags::EXCLUSIVE, write);
    report.attempt("create", created);
    let file = open(&dir, "own").map_err(|error| format!("own: {error:?}"))?;
    report.attempt("write through a reader", file.write(b"changed", 0));
    report.attempt("shorten through a reader", file.set_size(0));
    let now = NewTimestamp::Now;
    report.attempt("set times through a reader", file.set_times(now, now));
    // A stream may be had, and then nothing written.
    for (what, stream) in [
        ("stream into a reader", file.write_via_stream(0)),
        ("append to a reader", file.append_via_stream()),
    ] {
        let written = match stream {
            Ok(stream) => stream
                .blocking_write_and_flush(b"changed")
                .map_err(|error| error.to_string()),
            Err(error) => Err(format!("{error:?}")),
        };
        report.attempt(what, written);
    }
    report.attempt("set times", dir.set_times_at(none, "own", now, now));
    report.attempt("make a directory", dir.create_directory_at("made"));
    report.attempt("make a link", dir.symlink_at("own", "made"));
    report.attempt("unlink", dir.unlink_file_at("own"));
    report.attempt("rename", dir.rename_at("own", &dir, "other"));
    // By a name that may be written to.
    report.attempt("move out", dir.rename_at("own", &other, "stolen"));
    report.attempt("link out", dir.link_at(none, "own", &other, "stolen"));
    report.attempt("move in", other.rename_at("own", &dir, "planted"));
    report.attempt("link in", other.link_at(none, "own", &dir, "planted"));
    let directory = dir
        .open_at(none, ".", OpenFlags::DIRECTORY, read)
        .map_err(|error| format!(".: {error:?}"))?;
    let through = directory.open_at(none, "own", OpenFlags::empty(), write);
    report.attempt("open to write through a directory of it", through);
    Ok(())
}
