//! Events for containerd, in order, none lost while containerd restarts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use containerd_shim::Context;
use containerd_shim::protos::events::task::{
    TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskOOM, TaskPaused,
    TaskResumed, TaskStart,
};
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::protos::protobuf::{Message, MessageField};
use containerd_shim::protos::shim::event::Envelope;
use containerd_shim::protos::shim::events::ForwardRequest;
use containerd_shim::protos::shim_async::{Client, EventsClient};
use log::warn;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, watch};

use super::process::now;

/// Events kept while containerd is away. A pod makes a handful per container;
/// who waits for more than this asks containerd for the state anyway.
const QUEUE: usize = 4096;
/// How long one delivery may take before the connection is given up.
const DELIVERY: Duration = Duration::from_secs(5);

/// An event of a task.
#[derive(Debug)]
pub enum Event {
    /// Created, not started.
    Create(TaskCreate),
    /// Started.
    Start(TaskStart),
    /// A further process is to come.
    ExecAdded(TaskExecAdded),
    /// It is there.
    ExecStarted(TaskExecStarted),
    /// All its processes have been stopped.
    Paused(TaskPaused),
    /// They go on.
    Resumed(TaskResumed),
    /// It has run out of memory.
    Oom(TaskOOM),
    /// One of its processes that containerd knows has ended.
    Exit(TaskExit),
    /// Removed.
    Delete(TaskDelete),
}

impl Event {
    /// Topic, type name and encoded message, as containerd knows them.
    fn encode(&self) -> Result<(&'static str, Any), containerd_shim::protos::protobuf::Error> {
        let (topic, name, value) = match self {
            Self::Create(e) => ("/tasks/create", "TaskCreate", e.write_to_bytes()?),
            Self::Start(e) => ("/tasks/start", "TaskStart", e.write_to_bytes()?),
            Self::ExecAdded(e) => ("/tasks/exec-added", "TaskExecAdded", e.write_to_bytes()?),
            Self::ExecStarted(e) => (
                "/tasks/exec-started",
                "TaskExecStarted",
                e.write_to_bytes()?,
            ),
            Self::Paused(e) => ("/tasks/paused", "TaskPaused", e.write_to_bytes()?),
            Self::Resumed(e) => ("/tasks/resumed", "TaskResumed", e.write_to_bytes()?),
            Self::Oom(e) => ("/tasks/oom", "TaskOOM", e.write_to_bytes()?),
            Self::Exit(e) => ("/tasks/exit", "TaskExit", e.write_to_bytes()?),
            Self::Delete(e) => ("/tasks/delete", "TaskDelete", e.write_to_bytes()?),
        };
        // Spelled out: asking the message for its name would build protobuf's
        // reflection tables, which are larger than all else in this process.
        let any = Any {
            type_url: format!("containerd.events.{name}"),
            value,
            ..Any::default()
        };
        Ok((topic, any))
    }
}

/// The queue's entrance; clones share it.
#[derive(Clone, Debug)]
pub struct Publisher {
    queue: UnboundedSender<Envelope>,
    namespace: String,
    pending: Arc<Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    count: AtomicUsize,
    drained: Notify,
    /// The last delivery has failed.
    away: watch::Sender<bool>,
}

impl Publisher {
    /// Starts the task that delivers to containerd's ttrpc socket at `address`.
    pub fn start(address: String, namespace: String) -> Self {
        let (queue, events) = unbounded_channel();
        let pending = Arc::new(Pending::default());
        tokio::spawn(deliver(address, events, pending.clone()));
        Self {
            queue,
            namespace,
            pending,
        }
    }

    /// Queues `event`. Never waits.
    pub fn publish(&self, event: &Event) {
        let (topic, any) = match event.encode() {
            Ok(encoded) => encoded,
            Err(error) => return warn!("event {event:?}: {error}"),
        };
        if self.pending.count.load(Ordering::Relaxed) >= QUEUE {
            return warn!("event {topic} dropped: containerd took none of the last {QUEUE}");
        }
        let envelope = Envelope {
            timestamp: MessageField::some(now()),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            event: MessageField::some(any),
            ..Envelope::default()
        };
        self.pending.count.fetch_add(1, Ordering::Relaxed);
        if self.queue.send(envelope).is_err() {
            self.pending.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Waits until all is delivered or cannot be; answers whether it cannot be,
    /// for now.
    pub async fn is_away(&self) -> bool {
        let mut away = self.pending.away.subscribe();
        loop {
            let drained = self.pending.drained.notified();
            if *away.borrow_and_update() {
                return true;
            }
            if self.pending.count.load(Ordering::Relaxed) == 0 {
                return false;
            }
            tokio::select! {
                () = drained => {}
                _ = away.changed() => {}
            }
        }
    }

    /// Waits until all is delivered, at most for `limit`.
    pub async fn flush(&self, limit: Duration) {
        let drained = async {
            loop {
                let notified = self.pending.drained.notified();
                if self.pending.count.load(Ordering::Relaxed) == 0 {
                    return;
                }
                notified.await;
            }
        };
        if tokio::time::timeout(limit, drained).await.is_err() {
            warn!("events left undelivered: containerd is away");
        }
    }
}

async fn deliver(address: String, mut events: UnboundedReceiver<Envelope>, pending: Arc<Pending>) {
    let mut client = None;
    while let Some(envelope) = events.recv().await {
        let mut request = ForwardRequest::new();
        request.set_envelope(envelope);
        let mut pause = Duration::from_millis(50);
        while let Err(error) = forward(&mut client, &address, &request).await {
            client = None;
            pending.away.send_replace(true);
            warn!(
                "event {}: {error}; again in {pause:?}",
                request.envelope().topic
            );
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
        pending.away.send_replace(false);
        if pending.count.fetch_sub(1, Ordering::Relaxed) == 1 {
            pending.drained.notify_waiters();
        }
    }
}

async fn forward(
    client: &mut Option<EventsClient>,
    address: &str,
    request: &ForwardRequest,
) -> anyhow::Result<()> {
    let client = match client {
        Some(client) => client,
        none => {
            let path = address.trim_start_matches("unix://");
            let stream = tokio::net::UnixStream::connect(path).await?;
            none.insert(EventsClient::new(Client::new(stream.into())))
        }
    };
    let context = Context {
        timeout_nano: i64::try_from(DELIVERY.as_nanos()).unwrap_or(i64::MAX),
        ..Context::default()
    };
    client.forward(context, request).await?;
    Ok(())
}
