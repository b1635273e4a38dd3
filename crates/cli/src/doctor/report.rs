//! Printing what was found.

use std::fmt::Write;

use anyhow::Result;
use serde_json::json;
use wisp_node::{Finding, Status};

use crate::cache::print;

/// One line for each finding, and what to do about it below.
///
/// # Errors
/// When standard output cannot be written.
pub fn text(findings: &[Finding], colours: bool) -> Result<()> {
    print(&shown(findings, colours))
}

/// One document.
///
/// # Errors
/// When standard output cannot be written.
pub fn json(findings: &[Finding]) -> Result<()> {
    let ok = !findings
        .iter()
        .any(|finding| finding.status == Status::Failed);
    let document = json!({ "ok": ok, "findings": findings });
    print(&format!("{document:#}\n"))
}

fn shown(findings: &[Finding], colours: bool) -> String {
    let width = findings
        .iter()
        .map(|finding| finding.check.len())
        .max()
        .unwrap_or_default();
    let mut text = String::new();
    for finding in findings {
        let (word, colour) = match finding.status {
            Status::Ok => ("ok", "32"),
            Status::Warning => ("warning", "33"),
            Status::Failed => ("failed", "31"),
        };
        let (on, off) = match colours {
            true => (format!("\x1b[{colour}m"), "\x1b[0m"),
            false => (String::new(), ""),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{on}{word:7}{off}  {:width$}  {}",
            finding.check,
            plain(&finding.found)
        );
        for line in finding.remedy.iter().flat_map(|remedy| remedy.lines()) {
            let _ = writeln!(text, "         {:width$}    {}", "", plain(line));
        }
    }
    text
}

/// Text of others, such as an error, without what a terminal would obey.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_has_a_line_and_its_way_out_below() {
        let findings = [
            Finding::ok("kernel", "fine"),
            Finding::failed("containerd", "gone\x1b[2J", "start it:\n  systemctl start"),
        ];
        let text = shown(&findings, false);
        assert_eq!(
            text,
            "ok       kernel      fine\n\
             failed   containerd  gone [2J\n\
             \x20                      start it:\n\
             \x20                        systemctl start\n"
        );
        assert!(shown(&findings, true).contains("\x1b[31mfailed"));
    }
}
