//! kubectl, as somebody.

use super::called;
use crate::run::Ended;
use crate::{command, wait};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long one run may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// kubectl with the credentials of somebody.
#[derive(Clone, Debug)]
pub struct Kubectl {
    kubeconfig: PathBuf,
    more: Vec<String>,
}

impl Kubectl {
    /// As the kubeconfig says.
    pub fn new(kubeconfig: &Path) -> Self {
        Self {
            kubeconfig: kubeconfig.to_owned(),
            more: Vec::new(),
        }
    }

    /// Its kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The same with more arguments before all others.
    #[must_use]
    pub fn with(&self, more: &[&str]) -> Self {
        let mut new = self.clone();
        new.more.extend(more.iter().map(|&one| one.to_owned()));
        new
    }

    /// To be run otherwise.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut kubectl = called("kubectl");
        kubectl
            .args(&self.more)
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            // What it learns of the API is kept there.
            .env("HOME", self.kubeconfig.parent().unwrap_or(Path::new("/")));
        kubectl
    }

    /// Runs it, whatever comes.
    ///
    /// # Errors
    /// When it does not end.
    pub fn run(&self, arguments: &[&str], stdin: &str) -> Result<Ended> {
        command::run(&mut self.command(arguments), stdin.into(), PATIENCE)
    }

    /// Runs it, and takes nothing but success; answers what it printed.
    ///
    /// # Errors
    /// What it said.
    pub fn ok(&self, arguments: &[&str]) -> Result<String> {
        self.take(arguments, "")
    }

    /// The same with something to read.
    ///
    /// # Errors
    /// What it said.
    pub fn take(&self, arguments: &[&str], stdin: &str) -> Result<String> {
        let ended = self.run(arguments, stdin)?;
        ensure!(
            ended.code == 0,
            "kubectl {} exited {}: {}{}",
            arguments.join(" "),
            ended.code,
            ended.err(),
            ended.out()
        );
        Ok(ended.out())
    }

    /// Runs it, and takes nothing but a failure that says all of `words`.
    ///
    /// # Errors
    /// When it succeeds, or says something else.
    pub fn refused(&self, arguments: &[&str], stdin: &str, words: &[&str]) -> Result<()> {
        let ended = self.run(arguments, stdin)?;
        let title = arguments.join(" ");
        ensure!(
            ended.code != 0,
            "kubectl {title}: was taken: {}",
            ended.out()
        );
        for word in words {
            ensure!(
                ended.err().contains(word),
                "kubectl {title}: no {word:?} in {}",
                ended.err()
            );
        }
        Ok(())
    }

    /// An object or a list of them.
    ///
    /// # Errors
    /// What `kubectl get` said.
    pub fn get(&self, arguments: &[&str]) -> Result<Value> {
        let all = [&["get", "--output=json"], arguments].concat();
        serde_json::from_str(&self.ok(&all)?).context("what kubectl get printed")
    }

    /// Looks at an object until `look` finds what it looks for.
    ///
    /// # Errors
    /// When it does not in time; with the object as it was last.
    pub fn until<T>(
        &self,
        arguments: &[&str],
        patience: Duration,
        mut look: impl FnMut(&Value) -> Option<T>,
    ) -> Result<T> {
        let mut last = String::new();
        let found = wait::until(patience, || {
            let found = match self.get(arguments) {
                Ok(object) => {
                    last = object.to_string();
                    look(&object)
                }
                Err(error) => {
                    last = format!("{error:#}");
                    None
                }
            };
            if found.is_none() {
                // Each look is a process; the processors are for what is waited for.
                std::thread::sleep(Duration::from_millis(250));
            }
            found
        });
        match found {
            Some(found) => Ok(found),
            None => bail!("{arguments:?} within {patience:?}: it is still {last}"),
        }
    }
}
