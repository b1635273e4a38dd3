//! containerd's events, as they come.

use crate::containerd::Containerd;
use crate::wait;
use anyhow::{Context, Result, anyhow, bail};
use containerd_client::events::{
    TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskOom, TaskPaused,
    TaskResumed, TaskStart,
};
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::services::v1::{PublishRequest, SubscribeRequest};
use containerd_client::tonic::Request;
use prost::Message;
use prost_types::Any;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::Builder;

/// What happened to a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Such as `/tasks/start`.
    pub topic: String,
    /// Whose task.
    pub container: String,
    /// The exec process it is about, or nothing.
    pub exec: String,
    /// Its process.
    pub pid: u32,
    /// What it ended with, in events about its end.
    pub exit: Option<u32>,
}

/// A subscription to the task events of one namespace.
#[derive(Debug)]
pub struct Events {
    receive: Receiver<Result<Event>>,
}

/// The topic of what tells us that the subscription is there: containerd says
/// so by no other sign.
const MARKER: &str = "/wisp-tests/subscribed";

impl Events {
    /// Subscribes, and returns once no event can be missed.
    ///
    /// # Errors
    /// When containerd does not answer.
    pub fn subscribe(node: &Containerd, namespace: &str) -> Result<Self> {
        let (send, receive) = channel();
        let socket = node.socket();
        let wanted = namespace.to_owned();
        thread::spawn(move || {
            if let Err(error) = listen(socket, &wanted, &send) {
                let _ = send.send(Err(error));
            }
        });
        let events = Self { receive };
        let deadline = Instant::now() + wait::here(wait::PATIENCE);
        while Instant::now() < deadline {
            publish_marker(node, namespace)?;
            match events.receive.recv_timeout(Duration::from_millis(50)) {
                Ok(event) => {
                    event?;
                    return Ok(events);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("the subscription ended"),
            }
        }
        bail!("containerd delivers no events")
    }

    /// The events up to the deletion of `container`'s task, about that task.
    ///
    /// # Errors
    /// When that event does not come.
    pub fn until_deleted(&self, container: &str) -> Result<Vec<Event>> {
        let mut seen = Vec::new();
        let deadline = Instant::now() + wait::here(wait::PATIENCE);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self
                .receive
                .recv_timeout(left)
                .map_err(|_| anyhow!("no /tasks/delete of {container}; events: {seen:#?}"))??;
            if event.container != container {
                continue;
            }
            let last = event.topic == "/tasks/delete";
            seen.push(event);
            if last {
                return Ok(seen);
            }
        }
    }
}

fn publish_marker(node: &Containerd, namespace: &str) -> Result<()> {
    Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async {
            let channel = containerd_client::connect(node.socket()).await?;
            let mut request = Request::new(PublishRequest {
                topic: MARKER.to_owned(),
                event: Some(Any {
                    type_url: "containerd.events.TaskStart".to_owned(),
                    value: Vec::new(),
                }),
            });
            request
                .metadata_mut()
                .insert("containerd-namespace", namespace.parse()?);
            EventsClient::new(channel).publish(request).await?;
            Ok(())
        })
}

fn listen(socket: PathBuf, namespace: &str, send: &Sender<Result<Event>>) -> Result<()> {
    Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async {
            let channel = containerd_client::connect(socket).await?;
            let request = SubscribeRequest {
                filters: vec![format!("namespace=={namespace}")],
            };
            let mut stream = EventsClient::new(channel)
                .subscribe(request)
                .await?
                .into_inner();
            while let Some(envelope) = stream.message().await? {
                let any = envelope.event.unwrap_or_default();
                if let Some(event) = decode(envelope.topic, &any)?
                    && send.send(Ok(event)).is_err()
                {
                    break;
                }
            }
            Ok(())
        })
}

fn decode(topic: String, any: &Any) -> Result<Option<Event>> {
    let bytes = any.value.as_slice();
    let context = || format!("decode {topic}");
    let mut exec = String::new();
    let (container, pid, exit) = match topic.as_str() {
        "/tasks/create" => {
            let event = TaskCreate::decode(bytes).with_context(context)?;
            (event.container_id, event.pid, None)
        }
        "/tasks/start" | MARKER => {
            let event = TaskStart::decode(bytes).with_context(context)?;
            (event.container_id, event.pid, None)
        }
        "/tasks/exec-added" => {
            let event = TaskExecAdded::decode(bytes).with_context(context)?;
            exec = event.exec_id;
            (event.container_id, 0, None)
        }
        "/tasks/exec-started" => {
            let event = TaskExecStarted::decode(bytes).with_context(context)?;
            exec = event.exec_id;
            (event.container_id, event.pid, None)
        }
        "/tasks/paused" => {
            let event = TaskPaused::decode(bytes).with_context(context)?;
            (event.container_id, 0, None)
        }
        "/tasks/resumed" => {
            let event = TaskResumed::decode(bytes).with_context(context)?;
            (event.container_id, 0, None)
        }
        "/tasks/oom" => {
            let event = TaskOom::decode(bytes).with_context(context)?;
            (event.container_id, 0, None)
        }
        "/tasks/exit" => {
            let event = TaskExit::decode(bytes).with_context(context)?;
            if event.id != event.container_id {
                exec = event.id;
            }
            (event.container_id, event.pid, Some(event.exit_status))
        }
        "/tasks/delete" => {
            let event = TaskDelete::decode(bytes).with_context(context)?;
            (event.container_id, event.pid, Some(event.exit_status))
        }
        other if other.starts_with("/tasks/") => bail!("unexpected event {other}"),
        _ => return Ok(None),
    };
    Ok(Some(Event {
        topic,
        container,
        exec,
        pid,
        exit,
    }))
}
