//! `wisp cache ls`.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use wisp_aot::{Cache, Entry};
use wisp_config::Config;

use super::amount;

/// List the compiled programs, least recently used first
#[derive(Debug, Args)]
pub struct List {
    /// Print JSON: sizes in bytes, times in seconds since 1970
    #[arg(long)]
    json: bool,
}

/// A compiled program.
#[derive(Debug, Serialize)]
struct Line {
    /// Of the program.
    digest: String,
    program_size: Option<u64>,
    code_size: Option<u64>,
    /// The version of wisp that stored it.
    wisp: Option<String>,
    wasmtime: Option<String>,
    /// Whether this wisp on this processor uses it.
    current: bool,
    last_used: u64,
    in_use: bool,
    damage: Option<String>,
    path: String,
    #[serde(skip)]
    unused: String,
}

impl List {
    /// Prints the list.
    ///
    /// # Errors
    /// A directory that cannot be read.
    pub fn run(&self, config: &Config) -> Result<ExitCode> {
        let now = SystemTime::now();
        let cache = Cache::from_config(config);
        let lines: Vec<Line> = super::entries(&cache)?
            .iter()
            .map(|entry| Line::new(entry, now))
            .collect();
        let text = if self.json {
            serde_json::to_string_pretty(&lines)? + "\n"
        } else {
            table(&lines)
        };
        super::print(&text)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Line {
    fn new(entry: &Entry, now: SystemTime) -> Self {
        let (trailer, damage) = match entry.trailer() {
            Ok(trailer) => (Some(trailer), None),
            Err(damage) => (None, Some(damage.to_string())),
        };
        let since_1970 = entry.last_used.duration_since(UNIX_EPOCH);
        Self {
            digest: entry.key.program().to_string(),
            program_size: trailer.as_ref().map(|trailer| trailer.program_size),
            code_size: trailer.as_ref().map(|trailer| trailer.code_size),
            wisp: trailer.as_ref().map(|trailer| trailer.wisp.clone()),
            wasmtime: trailer.map(|trailer| trailer.wasmtime),
            current: entry.is_current(),
            last_used: since_1970.map_or(0, |time| time.as_secs()),
            in_use: entry.is_in_use(),
            damage,
            path: entry.path.display().to_string(),
            unused: amount::age(entry.unused_for(now)),
        }
    }
}

fn table(lines: &[Line]) -> String {
    let size = |size: Option<u64>| size.map_or_else(|| "?".into(), amount::size);
    let mut text = row("PROGRAM", "SIZE", "CODE", "WISP", "USED", "");
    for line in lines {
        let mut notes = Vec::new();
        if line.in_use {
            notes.push("in use".to_owned());
        }
        if !line.current {
            notes.push("another version or processor".to_owned());
        }
        if let Some(damage) = &line.damage {
            notes.push(format!("damaged: {damage}"));
        }
        let used = format!("{} ago", line.unused);
        text += &row(
            &line.digest,
            &size(line.program_size),
            &size(line.code_size),
            line.wisp.as_deref().unwrap_or("?"),
            &used,
            &notes.join(", "),
        );
    }
    text
}

fn row(program: &str, size: &str, code: &str, wisp: &str, used: &str, notes: &str) -> String {
    let row = format!("{program:<71}  {size:>9}  {code:>9}  {wisp:<8}  {used:<12}  {notes}");
    row.trim_end().to_owned() + "\n"
}
