//! Exports spans in batches, one after the other, for as long as the server lives.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::post::{Answer, Post};
use super::queue::Queue;
use super::settings::Settings;
use super::span::Span;
use super::{Traces, encode, ids};
use crate::exit::complain;
use crate::http::outbound::Client;

/// How long to wait before the second try, and how much longer before each other
/// one, up to a limit; in part by chance, so that not all come back at once.
const FIRST: Duration = Duration::from_secs(1);
const MORE: f64 = 1.5;
const LONGEST: Duration = Duration::from_secs(10);

/// Between two batches while the server ends: nobody knows how long it is left
/// alone.
const HURRY: Duration = Duration::from_millis(500);

/// How the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Serving,
    /// Some requests are still being answered.
    Ending,
    /// There will be no more spans.
    Over,
}

/// The task that exports.
pub struct Exporter {
    life: watch::Sender<Life>,
    task: JoinHandle<()>,
}

struct Work {
    queue: Arc<Queue>,
    post: Post,
    resource: Vec<(String, String)>,
    place: String,
    delay: Duration,
    batch_timeout: Duration,
    life: watch::Receiver<Life>,
    /// Whether it has been told that batches fail, and that spans are rejected.
    failing: bool,
    rejecting: bool,
}

impl Exporter {
    /// Starts to export the spans of `traces` as `settings` say.
    ///
    /// # Errors
    /// The endpoint is not granted to the guest: what it may not reach, its host
    /// does not reach for it. Says what would grant it.
    pub fn start(settings: Settings, traces: &Traces, client: Arc<Client>) -> Result<Self, String> {
        if let Err(problem) = client.may_ask(&settings.endpoint) {
            return Err(format!(
                "{}: {problem}; no spans are exported",
                settings.variable
            ));
        }
        let (life, lives) = watch::channel(Life::Serving);
        let authority = settings.endpoint.authority();
        let work = Work {
            queue: traces.queue.clone(),
            place: authority.map_or_else(String::new, ToString::to_string),
            post: Post::new(client, &settings),
            resource: settings.resource,
            delay: settings.delay,
            batch_timeout: settings.batch_timeout,
            life: lives,
            failing: false,
            rejecting: false,
        };
        Ok(Self {
            life,
            task: tokio::spawn(work.run()),
        })
    }

    /// The server has been asked to end: what waits is exported soon.
    pub fn hurry(&self) {
        self.life.send_replace(Life::Ending);
    }

    /// Exports what is left, until `deadline`. A collector that does not take it at
    /// once is not waited for.
    pub async fn finish(self, deadline: Instant) {
        self.life.send_replace(Life::Over);
        // What is not exported by then is lost with the process.
        let _ = timeout_at(deadline, self.task).await;
    }
}

impl Work {
    async fn run(mut self) {
        loop {
            self.wait().await;
            let over = self.life() == Life::Over;
            loop {
                let spans = self.queue.take();
                if spans.is_empty() {
                    break;
                }
                let went_well = self.export(spans).await;
                let over = self.life() == Life::Over;
                if self.queue.is_closed() || (over && !went_well) {
                    return;
                }
                // What is no batch yet waits for its time.
                if !over && !self.queue.has_batch() {
                    break;
                }
            }
            if over {
                return;
            }
        }
    }

    /// Waits for a batch, or for the time to export what there is.
    async fn wait(&mut self) {
        let delay = match self.life() {
            Life::Serving => self.delay,
            Life::Ending => self.delay.min(HURRY),
            Life::Over => return,
        };
        tokio::select! {
            () = self.queue.filled() => {}
            () = sleep(delay) => {}
            Ok(()) = self.life.changed() => {}
        }
    }

    /// Sends `spans`, again and again within their time if need be. Says whether
    /// they are there; if not, they are given up.
    async fn export(&mut self, spans: Vec<Span>) -> bool {
        let count = spans.len() as u64;
        let body = match self.post.body(&encode::export(&self.resource, spans)) {
            Ok(body) => body,
            Err(error) => {
                self.failed(count, &error.to_string());
                return false;
            }
        };
        let deadline = Instant::now() + self.batch_timeout;
        let mut pause = FIRST;
        loop {
            let last = self.life() == Life::Over;
            let answer = timeout_at(deadline, self.post.send(body.clone())).await;
            let (why, after) = match answer {
                Ok(Answer::Taken(rejected, why)) => {
                    self.taken(count, rejected, &why);
                    return true;
                }
                Ok(Answer::Prohibited) => {
                    self.queue.close();
                    self.queue.counts.failed.add(count);
                    complain("no spans are exported any more");
                    return false;
                }
                Ok(Answer::Refused(why)) => {
                    self.failed(count, &why);
                    return false;
                }
                Ok(Answer::Again(why, after)) => (why, after),
                Err(_) => ("no answer in time".to_owned(), None),
            };
            let wait = after.unwrap_or_else(|| pause.mul_f64(0.5 + ids::fraction()));
            pause = pause.mul_f64(MORE).min(LONGEST);
            if last || wait >= deadline.saturating_duration_since(Instant::now()) {
                self.failed(count, &why);
                return false;
            }
            // At the end it is tried once more.
            let is_over = self.life.wait_for(|life| *life == Life::Over);
            let _ = timeout(wait, is_over).await;
        }
    }

    fn taken(&mut self, count: u64, rejected: u64, why: &str) {
        let counts = &self.queue.counts;
        let rejected = rejected.min(count);
        counts.exported.add(count - rejected);
        counts.failed.add(rejected);
        if self.failing {
            self.failing = false;
            complain(&format!("spans are exported to {} again", self.place));
        }
        // Told once: it is most often the same for all that follow.
        if rejected > 0 && !self.rejecting {
            complain(&format!("{} rejects {rejected} spans: {why}", self.place));
        }
        self.rejecting = rejected > 0;
    }

    fn failed(&mut self, count: u64, why: &str) {
        self.queue.counts.failed.add(count);
        if !self.failing {
            self.failing = true;
            complain(&format!(
                "exporting spans to {}: {why}; they are lost until it takes them",
                self.place
            ));
        }
    }

    fn life(&self) -> Life {
        *self.life.borrow()
    }
}

#[cfg(test)]
#[path = "export_tests.rs"]
mod tests;
