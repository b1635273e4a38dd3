//! What the command line says.

use crate::instructions;
use crate::plan::Plan;
use crate::train;
use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Measures wisp beside its peers.
#[derive(Debug, Parser)]
pub struct Arguments {
    #[command(subcommand)]
    pub what: What,
}

#[derive(Debug, Subcommand)]
pub enum What {
    /// Measure time and memory, and write the report
    Run(Run),
    /// Compare two builds by the instructions they execute
    Instructions(instructions::Instructions),
    /// Put a program under load that counts what it executes
    Train(train::Train),
}

#[derive(Debug, clap::Args)]
pub struct Run {
    /// The directory with the shim and `wisp`
    #[arg(long, default_value = "target/release")]
    pub binaries: PathBuf,
    /// The same of another version of wisp, to be measured beside it
    #[arg(long)]
    pub baseline: Option<PathBuf>,
    /// How much is measured
    #[arg(long, value_enum, default_value = "quick")]
    pub plan: Length,
    /// Only this; again for more. The report is then printed and not written
    #[arg(long, value_enum)]
    pub only: Vec<Subject>,
    /// Of HTTP servers, only this case, such as hello-02-fresh; again for more
    #[arg(long)]
    pub case: Vec<String>,
    /// Only these contestants besides wisp; again for more
    #[arg(long)]
    pub against: Vec<String>,
    /// The containerd: 1.6 or 2.1. The report is of 2.1, the other is printed
    #[arg(long, default_value = "2.1")]
    pub containerd: String,
}

impl Run {
    pub fn plan(&self) -> Plan {
        match self.plan {
            Length::Smoke => Plan::smoke(),
            Length::Quick => Plan::quick(),
            Length::Full => Plan::full(),
        }
    }

    pub fn wants(&self, subject: Subject) -> bool {
        self.only.is_empty() || self.only.contains(&subject)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Length {
    Smoke,
    Quick,
    Full,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Subject {
    CtrRun,
    Calls,
    AtOnce,
    CtrAtOnce,
    Memory,
    Pods,
    Programs,
    Sizes,
    Http,
}

impl Subject {
    /// Whether it is measured in the containerd that most share.
    pub fn shares_node(self) -> bool {
        self != Self::Http
    }
}
