//! Installed, and kept so.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

use crate::args::{OnStop, Run};
use crate::host::{Host, Installed};
use crate::kubernetes::ApiError;
use crate::node::{Node, Report};
use crate::state::Shared;
use crate::stop::Stop;
use crate::{remove, say};

/// How long after a failure it is tried again, at first and at most.
const FIRST: Duration = Duration::from_secs(5);
const MOST: Duration = Duration::from_secs(300);
/// How often in a row the node may not answer before that counts: containerd is
/// restarted by others, too.
const SILENT: u32 = 3;
/// After how long the same failure is an event again; the API server forgets
/// events after an hour.
const AGAIN: Duration = Duration::from_secs(1800);

/// Until it is told to stop.
///
/// # Errors
/// When what it was told to do at its end did not work.
pub async fn run(
    args: &Run,
    host: &Host,
    node: &Node<'_>,
    shared: &Shared,
    mut stop: Stop,
) -> Result<()> {
    let mut keeper = Keeper {
        host,
        node,
        shared,
        interval: Duration::from_secs(args.interval),
        failures: 0,
        silent: 0,
        installed: None,
        report: None,
        told: None,
    };
    loop {
        let pause = keeper.turn().await;
        if stop.within(pause).await {
            break;
        }
    }
    let leaves = match args.on_stop {
        OnStop::Keep => false,
        OnStop::Uninstall => true,
        OnStop::Auto => match node.is_retired(&args.daemon_set).await {
            Some(retired) => retired,
            None => {
                say("it is not known whether the DaemonSet is deleted: everything stays");
                false
            }
        },
    };
    if !leaves {
        say("ending; what is installed stays");
        return Ok(());
    }
    say("the DaemonSet is deleted: wisp leaves this node");
    remove::once(host, node, shared, Duration::from_secs(args.wait)).await
}

struct Keeper<'a> {
    host: &'a Host,
    node: &'a Node<'a>,
    shared: &'a Shared,
    interval: Duration,
    /// In a row.
    failures: u32,
    silent: u32,
    /// What the last installation left, if it succeeded.
    installed: Option<Installed>,
    /// What the Node object is to say.
    report: Option<Report>,
    /// The event of the last failure, and when it was made.
    told: Option<(String, Instant)>,
}

impl Keeper<'_> {
    /// Looks once and does what there is to do; answers when to look again.
    async fn turn(&mut self) -> Duration {
        self.shared.beat();
        if !self.is_as_it_was().await {
            self.install().await;
        }
        self.shared.beat();
        self.publish().await;
        match self.failures {
            0 => self.interval,
            count => MOST.min(FIRST * 2u32.saturating_pow(count.min(16) - 1)),
        }
    }

    /// Whether the node is as the last installation left it.
    async fn is_as_it_was(&mut self) -> bool {
        let Some(installed) = &self.installed else {
            return false;
        };
        match self.host.status().await {
            Ok(found) => {
                self.silent = 0;
                self.shared.lock().processes = found.processes.len();
                let same = found.is_still(installed);
                if !same {
                    say("the node has changed; installing again");
                }
                same
            }
            Err(reason) => {
                self.silent += 1;
                say(&format!("the node cannot be looked at: {reason}"));
                self.silent < SILENT
            }
        }
    }

    async fn install(&mut self) {
        // Without the label no pod would come: then the node is better left as it is.
        if let Err(error @ ApiError::Refused(401 | 403 | 404 | 422, _)) = self.node.may_say().await
        {
            self.shared.lock().refused += 1;
            let reason = format!("the Node object may not be told, so nothing is changed: {error}");
            return self.fails(reason).await;
        }
        let begun = Instant::now();
        let result = self.host.install().await;
        let took = begun.elapsed();
        self.shared.lock().took = took;
        match result {
            Ok(installed) => self.works(installed).await,
            Err(reason) => self.fails(reason).await,
        }
    }

    async fn works(&mut self, installed: Installed) {
        say(&format!(
            "wisp {} works on this node, with containerd {}",
            installed.version, installed.containerd
        ));
        {
            let mut state = self.shared.lock();
            match installed.configured {
                true => state.changed += 1,
                false => state.unchanged += 1,
            }
            state.version.clone_from(&installed.version);
            state.containerd.clone_from(&installed.containerd);
            state.prove();
        }
        let news = installed.configured || self.told.take().is_some();
        self.report = Some(Report::new(
            true,
            "ready",
            "",
            json!({
                "version": installed.version,
                "containerd": installed.containerd,
                "shim": installed.shim,
                "config": installed.file,
            }),
        ));
        if news {
            let text = format!(
                "version {} is installed and runs containers; containerd is told by {}",
                installed.version,
                installed.file.display()
            );
            self.event(false, "WispInstalled", &text).await;
        }
        self.installed = Some(installed);
        self.failures = 0;
        self.silent = 0;
    }

    async fn fails(&mut self, reason: String) {
        say(&format!("not installed: {reason}"));
        self.installed = None;
        self.failures += 1;
        {
            let mut state = self.shared.lock();
            state.failed += 1;
            state.not_ready = Some(reason.clone());
        }
        let known = self
            .told
            .as_ref()
            .is_some_and(|(text, at)| *text == reason && at.elapsed() < AGAIN);
        // A version that was there before goes on to take pods.
        let works = self.host.works().await;
        let changed = self.report.as_ref().is_none_or(|said| said.ready != works);
        if known && !changed {
            return;
        }
        self.report = Some(Report::new(
            works,
            "failed",
            &reason,
            json!({ "version": env!("CARGO_PKG_VERSION") }),
        ));
        if known {
            return;
        }
        self.event(true, "WispNotInstalled", &reason).await;
        self.told = Some((reason, Instant::now()));
    }

    /// Makes the Node object say what is so, whoever has changed it.
    async fn publish(&mut self) {
        let Some(report) = &self.report else {
            return;
        };
        match self.node.say(report).await {
            Ok(true) => self.shared.lock().repaired += 1,
            Ok(false) => {}
            Err(error) => {
                say(&format!("the Node object is not told: {error}"));
                let mut state = self.shared.lock();
                state.refused += 1;
                // Nobody would send pods here.
                if state.not_ready.is_none() {
                    state.not_ready = Some(format!("the Node object is not told: {error}"));
                }
                return;
            }
        }
        // The installation's own failure stays one.
        if report.ready && self.failures == 0 {
            self.shared.lock().not_ready = None;
        }
    }

    async fn event(&self, warning: bool, reason: &str, message: &str) {
        if let Err(error) = self.node.event(warning, reason, message).await {
            say(&format!("no event: {error}"));
            self.shared.lock().refused += 1;
        }
    }
}
