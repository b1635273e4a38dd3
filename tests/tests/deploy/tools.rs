//! helm and kustomize.

use anyhow::{Result, ensure};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use wisp_tests::run::Ended;
use wisp_tests::{command, paths};

/// How long one run may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A path in `deploy/`.
pub fn deploy(name: &str) -> PathBuf {
    paths::repository().join("deploy").join(name)
}

fn tool(name: &str) -> PathBuf {
    paths::repository().join("target/tools/bin").join(name)
}

/// Why they cannot be run, if so.
pub fn missing() -> Option<String> {
    let missing = ["helm", "kustomize"]
        .into_iter()
        .find(|name| !tool(name).exists())?;
    Some(format!("{missing} is missing: run tests/get-helm.sh"))
}

/// Runs one of them, whatever comes.
pub fn run(name: &str, arguments: &[&str]) -> Result<Ended> {
    let mut tool = Command::new(tool(name));
    // Nothing of the user's, and no cluster.
    let nowhere = std::env::temp_dir();
    tool.args(arguments)
        .current_dir(deploy(""))
        .env("HOME", &nowhere)
        .env("KUBECONFIG", "/dev/null");
    command::run(&mut tool, Vec::new(), PATIENCE)
}

/// Runs one, and takes nothing but success; answers what it printed.
pub fn output(name: &str, arguments: &[&str]) -> Result<String> {
    let ended = run(name, arguments)?;
    ensure!(ended.code == 0, "{name} {arguments:?}: {}", ended.err());
    Ok(ended.out())
}

/// The chart, rendered with more arguments.
pub fn template(more: &[&str]) -> Result<String> {
    let usual = [
        "template",
        "release",
        "helm/wisp",
        "--namespace",
        "wisp-system",
        "--kube-version",
        "1.33.0",
    ];
    output("helm", &[&usual, more].concat())
}

/// An overlay, or the base.
pub fn build(name: &str) -> Result<String> {
    output("kustomize", &["build", name])
}
