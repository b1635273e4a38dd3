//! The daemon's log: lines for containerd's `log` FIFO in the bundle.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use containerd_shim::protos::protobuf::well_known_types::timestamp::Timestamp;
use log::{LevelFilter, Log, Metadata, Record};

struct FifoLogger {
    file: File,
    namespace: String,
    pod: String,
}

/// Installs the logger. Without a FIFO (not started by containerd) there is no
/// log; that is no reason not to serve.
pub fn init(namespace: &str, pod: &str, debug: bool) {
    // Both ways, so that a restart of containerd does not close our end.
    // Never waiting: a log nobody reads must not stop the pod.
    let Ok(file) = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("log")
    else {
        return;
    };
    let logger = FifoLogger {
        file,
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
    };
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(if debug {
            LevelFilter::Debug
        } else {
            LevelFilter::Info
        });
    }
    std::panic::set_hook(Box::new(|panic| log::error!("panic: {panic}")));
}

impl Log for FifoLogger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        // Below warnings, only our own words: the libraries narrate.
        metadata.level() <= log::Level::Warn
            || metadata.target().starts_with("containerd_shim_wisp")
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            // One write a line, so that lines of several daemons do not mix.
            let line = line(&self.namespace, &self.pod, record);
            let _ = (&self.file).write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

/// A line in the form of containerd's own log (logfmt). Messages that are about
/// one container of the pod name it.
fn line(namespace: &str, pod: &str, record: &Record) -> String {
    format!(
        "time={} level={} msg={:?} namespace={namespace} pod={pod} runtime=wisp\n",
        rfc3339(&super::process::now()),
        record.level().as_str().to_lowercase(),
        record.args().to_string(),
    )
}

/// `time` in UTC, to the second, as RFC 3339 writes it.
fn rfc3339(time: &Timestamp) -> String {
    let seconds = time.seconds;
    // SAFETY: an all-zero tm is a valid value of this plain C structure.
    let mut parts: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live locals of the right types.
    unsafe { libc::gmtime_r(&raw const seconds, &raw mut parts) };
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        parts.tm_year + 1900,
        parts.tm_mon + 1,
        parts.tm_mday,
        parts.tm_hour,
        parts.tm_min,
        parts.tm_sec
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_its_pod_and_keeps_to_itself() {
        let record = Record::builder()
            .args(format_args!("two\nlines"))
            .level(log::Level::Warn)
            .build();
        let text = line("k8s.io", "pod1", &record);
        assert!(
            text.ends_with(
                "level=warn msg=\"two\\nlines\" namespace=k8s.io pod=pod1 runtime=wisp\n"
            ),
            "{text}"
        );
        assert_eq!(text.matches('\n').count(), 1);
    }

    #[test]
    fn time_is_written_as_rfc_3339() {
        let time = Timestamp {
            seconds: 951_827_696,
            ..Timestamp::default()
        };
        assert_eq!(rfc3339(&time), "2000-02-29T12:34:56Z");
    }
}
