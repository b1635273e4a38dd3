//! The timeline of a container's creation, for whoever looks for milliseconds.
//!
//! With `WISP_TRACE` naming a file in the environment of the daemon (that is,
//! of containerd), each step of a Create and a Start is appended to that file
//! as one line of JSON: `{"container":…,"step":…,"at":…}`, `at` in nanoseconds
//! of CLOCK_MONOTONIC, which all processes of a machine share.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use log::warn;

/// The variable that names the file.
pub const VARIABLE: &str = "WISP_TRACE";

/// Now, in nanoseconds of CLOCK_MONOTONIC.
pub fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for writing, and that is all the call does. (nix
    // covers it with a feature that nothing else here needs.)
    if unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) } != 0 {
        return 0;
    }
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Writes the steps of one container, if anyone asked for them.
#[derive(Clone, Debug)]
pub struct Trace {
    container: String,
    file: Option<PathBuf>,
}

impl Trace {
    /// For `container`; silent unless [`VARIABLE`] is set.
    pub fn of(container: &str) -> Self {
        Self {
            container: container.to_owned(),
            file: std::env::var_os(VARIABLE)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from),
        }
    }

    /// Whether anyone listens.
    pub fn is_on(&self) -> bool {
        self.file.is_some()
    }

    /// A step is done, now.
    pub fn mark(&self, step: &str) {
        if self.is_on() {
            self.mark_at(step, now());
        }
    }

    /// A step was done at `at`.
    pub fn mark_at(&self, step: &str, at: u64) {
        let Some(path) = &self.file else { return };
        let line = serde_json::json!({"container": self.container, "step": step, "at": at});
        let written = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            // One write, so that lines of several daemons do not mix.
            .and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
        if let Err(error) = written {
            warn!("{VARIABLE}: {}: {error}", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on() {
        let first = now();
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert!(now() > first && first > 0);
    }

    #[test]
    fn a_step_is_a_line_of_json() {
        let dir = tempfile::tempdir().expect("temp dir");
        let trace = Trace {
            container: "c1".into(),
            file: Some(dir.path().join("trace")),
        };
        trace.mark_at("forked", 7);
        trace.mark("done");
        let text = std::fs::read_to_string(dir.path().join("trace")).expect("file");
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["step"], "forked");
        assert_eq!(lines[0]["at"], 7);
        assert_eq!(lines[1]["container"], "c1");
    }
}
