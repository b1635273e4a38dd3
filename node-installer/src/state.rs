//! What is known of the node at this moment: for probes and Prometheus.

use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::time;

/// After how long without a sign of life the program is taken for hanging:
/// longer than the longest step.
const SILENCE: Duration = Duration::from_secs(1200);

/// What is counted and told.
#[derive(Debug)]
pub struct State {
    /// Why it is not ready, in one line; `None` if it is.
    pub not_ready: Option<String>,
    /// The version that is installed.
    pub version: String,
    /// containerd's.
    pub containerd: String,
    /// Installations that changed something, found all as it was, and failed.
    pub changed: u64,
    pub unchanged: u64,
    pub failed: u64,
    /// How long the last one took.
    pub took: Duration,
    /// When a container was last seen to run, in seconds since 1970.
    pub proven: u64,
    /// The processes that run the shim.
    pub processes: usize,
    /// How often the Node object had to be told again.
    pub repaired: u64,
    /// Calls of the API server that failed.
    pub refused: u64,
    heard: Instant,
}

impl Default for State {
    fn default() -> Self {
        Self {
            not_ready: Some("nothing was done yet".to_owned()),
            version: String::new(),
            containerd: String::new(),
            changed: 0,
            unchanged: 0,
            failed: 0,
            took: Duration::ZERO,
            proven: 0,
            processes: 0,
            repaired: 0,
            refused: 0,
            heard: Instant::now(),
        }
    }
}

/// The same for everybody.
#[derive(Debug, Default)]
pub struct Shared(Mutex<State>);

impl Shared {
    /// To read or change it.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A sign of life.
    pub fn beat(&self) {
        self.lock().heard = Instant::now();
    }
}

impl State {
    /// Whether somebody should start the program anew.
    pub fn hangs(&self) -> bool {
        self.heard.elapsed() > SILENCE
    }

    /// In Prometheus' text format.
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, samples: &[(&str, String)]| {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in samples {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        };
        let info = format!(
            "{{version=\"{}\",containerd=\"{}\"}}",
            escaped(&self.version),
            escaped(&self.containerd)
        );
        family(
            "wisp_node_info",
            "gauge",
            "What is installed; empty before anything is.",
            &[(&info, "1".to_owned())],
        );
        family(
            "wisp_node_ready",
            "gauge",
            "Whether pods of wisp run on this node.",
            &[("", u8::from(self.not_ready.is_none()).to_string())],
        );
        family(
            "wisp_node_installs_total",
            "counter",
            "Installations by how they ended.",
            &[
                ("{result=\"changed\"}", self.changed.to_string()),
                ("{result=\"unchanged\"}", self.unchanged.to_string()),
                ("{result=\"failed\"}", self.failed.to_string()),
            ],
        );
        family(
            "wisp_node_install_seconds",
            "gauge",
            "How long the last installation took.",
            &[("", format!("{:.3}", self.took.as_secs_f64()))],
        );
        family(
            "wisp_node_proven_timestamp_seconds",
            "gauge",
            "When a container was last run to prove that it works.",
            &[("", self.proven.to_string())],
        );
        family(
            "wisp_node_processes",
            "gauge",
            "Processes that run the installed shim: daemons of pods, and guests.",
            &[("", self.processes.to_string())],
        );
        family(
            "wisp_node_object_repairs_total",
            "counter",
            "How often the Node object's label or annotation was not what it should be.",
            &[("", self.repaired.to_string())],
        );
        family(
            "wisp_node_api_errors_total",
            "counter",
            "Calls of the API server that failed.",
            &[("", self.refused.to_string())],
        );
        text
    }

    /// A container ran.
    pub fn prove(&mut self) {
        self.proven = time::now();
        self.not_ready = None;
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_has_a_type_and_a_number() {
        let state = State {
            version: "1\"2".to_owned(),
            failed: 3,
            ..State::default()
        };
        let text = state.metrics();
        assert!(text.contains("wisp_node_info{version=\"1\\\"2\",containerd=\"\"} 1\n"));
        assert!(text.contains("wisp_node_installs_total{result=\"failed\"} 3\n"));
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').expect("a sample");
            let name = name.split('{').next().expect("a name");
            assert!(text.contains(&format!("# TYPE {name} ")), "{line}");
            value.parse::<f64>().expect("a number");
        }
    }
}
