//! What every measure works with.

use crate::api::{Api, Template};
use crate::contestants::{Contestant, Job};
use crate::images::Images;
use crate::node::Node;
use crate::plan::Plan;
use anyhow::{Context, Result};
use tokio::runtime::Runtime;

/// One run.
#[derive(Debug)]
pub struct Bench<'a> {
    pub node: &'a Node,
    pub images: Images<'a>,
    pub contestants: Vec<Contestant>,
    pub plan: Plan,
    pub runtime: Runtime,
    pub api: Api,
}

impl Bench<'_> {
    /// The contestants without their variants.
    pub fn principals(&self) -> impl Iterator<Item = &Contestant> {
        self.contestants.iter().filter(|one| !one.variant)
    }

    /// What each of some contestants creates for a job.
    ///
    /// # Errors
    /// What `ctr` or the API said.
    pub fn templates<'c>(
        &self,
        contestants: impl Iterator<Item = &'c Contestant>,
        job: Job,
    ) -> Result<Vec<(&'c Contestant, Template)>> {
        contestants
            .map(|contestant| {
                let template = self
                    .runtime
                    .block_on(self.api.job(self.node, contestant, job))
                    .with_context(|| format!("{}: {job:?}", contestant.name))?;
                Ok((contestant, template))
            })
            .collect()
    }
}

/// Goes through `of` beginning at another place in each round, so that nobody is
/// always the first.
pub fn turned<T>(of: &[T], round: usize) -> impl Iterator<Item = &T> {
    (0..of.len()).map(move |place| &of[(place + round) % of.len()])
}

/// Says how far a measure is, now and then.
pub fn progress(what: &str, done: usize, of: usize) {
    let step = of.div_ceil(4);
    if done == of || done.is_multiple_of(step) {
        println!("    {what}: {done} of {of}");
    }
}
