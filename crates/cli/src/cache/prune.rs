//! `wisp cache prune`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use wisp_aot::{Cache, Limits};
use wisp_config::Config;

use super::amount;

/// Remove compiled programs that are not needed
///
/// Without a flag, what exceeds the settings: the least recently used while all
/// are larger than cache.max_size_mib, and what another version of wisp has not
/// used for cache.other_versions_days. What runs at the moment stays.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Prune {
    /// Remove the least recently used until all together are not larger, for
    /// example 500MiB
    #[arg(long, value_name = "SIZE", value_parser = amount::parse_size)]
    max_size: Option<u64>,
    /// Remove what has not been used for so long, for example 12h or 30d
    #[arg(long, value_name = "AGE", value_parser = amount::parse_age)]
    older_than: Option<Duration>,
    /// Remove everything
    #[arg(long, conflicts_with_all = ["max_size", "older_than"])]
    all: bool,
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
}

impl Prune {
    /// Removes, and says what.
    ///
    /// # Errors
    /// A directory that cannot be read.
    pub fn run(&self, config: &Config) -> Result<ExitCode> {
        let cache = Cache::from_config(config);
        let asked = self.all || self.max_size.is_some() || self.older_than.is_some();
        let limits = if asked {
            Limits {
                max_size: self.max_size,
                older_than: self.older_than,
                other_versions: None,
                all: self.all,
            }
        } else {
            cache.limits().clone()
        };
        let pruned = cache
            .prune(&limits, self.dry_run)
            .with_context(|| format!("cache directory {}", cache.dir().display()))?;
        let mut text = String::new();
        for entry in &pruned.removed {
            text += &format!("{} {}\n", entry.key.program(), amount::size(entry.size));
        }
        let bytes = pruned.removed.iter().map(|entry| entry.size).sum();
        text += &format!(
            "{} {} ({}); {} left ({}){}\n",
            if self.dry_run {
                "would remove"
            } else {
                "removed"
            },
            pruned.removed.len(),
            amount::size(bytes),
            pruned.left,
            amount::size(pruned.left_size),
            match pruned.in_use.len() {
                0 => String::new(),
                count => format!(", of which {count} stay because they run"),
            }
        );
        super::print(&text)?;
        Ok(ExitCode::SUCCESS)
    }
}
