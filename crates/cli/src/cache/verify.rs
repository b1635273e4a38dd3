//! `wisp cache verify`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use wisp_aot::Cache;
use wisp_config::Config;

/// Read every compiled program and check it
///
/// A start does so by itself, the first time after a boot. The exit code is 0
/// if nothing damaged is left, else 1.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Verify {
    /// Remove what is damaged; it is compiled again when it is needed
    #[arg(long)]
    remove: bool,
}

impl Verify {
    /// Checks all and says what is damaged.
    ///
    /// # Errors
    /// A directory that cannot be read.
    pub fn run(&self, config: &Config) -> Result<ExitCode> {
        let cache = Cache::from_config(config);
        let entries = super::entries(&cache)?;
        let mut damaged = 0;
        let mut left = 0;
        for entry in &entries {
            let Err(damage) = entry.verify() else {
                continue;
            };
            if !entry.path.exists() {
                // Somebody else has removed it in the meantime.
                continue;
            }
            damaged += 1;
            let removed = self.remove && cache.remove_entry(entry, true);
            left += u32::from(!removed);
            let what = if removed { " (removed)" } else { "" };
            super::print(&format!("{}: {damage}{what}\n", entry.path.display()))?;
        }
        super::print(&format!("{} checked, {damaged} damaged\n", entries.len()))?;
        Ok(if left == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}
