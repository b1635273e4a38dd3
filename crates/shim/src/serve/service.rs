//! The containers of one pod: how they come, how they go, and when the daemon does.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use containerd_shim::TtrpcResult;
use containerd_shim::protos::api::{
    CreateTaskRequest, CreateTaskResponse, DeleteRequest, DeleteResponse, StartRequest,
    StartResponse,
};
use containerd_shim::protos::protobuf::MessageField;
use log::warn;
use tokio::sync::Notify;
use wisp_container::Bundle;

use crate::orphans;

use super::create::Creation;
use super::error::TaskError;
use super::events::Publisher;
use super::process::Process;
use super::reaper::Reaper;
use super::task::Task;

/// The pod's containers.
type Table = HashMap<String, Slot>;

#[derive(Clone, Debug)]
enum Slot {
    /// Being created; Delete cuts that short.
    Creating(Arc<Creation>),
    /// There.
    Ready(Arc<Task>),
}

/// A daemon that has had no container for this long is of no use: a `start` that
/// containerd gave up has started it, or calls that met have left it behind.
const UNUSED: Duration = Duration::from_secs(10);

/// How long a daemon that was asked to end while it had containers waits, once
/// they are gone, for a call that says otherwise. Usually that is the same
/// question again; containerd 2 does not repeat it if a pod's first container
/// has ended before the others.
const RETIRED: Duration = Duration::from_secs(5);

/// The pod's containers, and the calls that make and remove them.
#[derive(Debug)]
pub struct Service {
    pub(super) namespace: String,
    /// The pod's id, which is that of its first container.
    pub(super) pod: String,
    pub(super) containerd: String,
    pub(super) reaper: Reaper,
    pub(super) publisher: Publisher,
    tasks: Mutex<Table>,
    shutdown: Notify,
    /// The end was asked for while there were containers.
    unwanted: AtomicBool,
    /// Told when there are no containers any more, and when the end is asked for.
    changed: Notify,
}

impl Service {
    /// A service of `pod` without containers. `containerd` is its gRPC socket.
    pub fn new(
        namespace: String,
        pod: String,
        containerd: String,
        reaper: Reaper,
        publisher: Publisher,
    ) -> Self {
        Self {
            namespace,
            pod,
            containerd,
            reaper,
            publisher,
            tasks: Mutex::default(),
            shutdown: Notify::new(),
            unwanted: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }

    /// Waits until containerd has asked for the end, or will not any more.
    pub async fn shut_down(&self) {
        let asked = self.shutdown.notified();
        tokio::pin!(asked);
        loop {
            let patience = self.patience();
            tokio::select! {
                () = &mut asked => return,
                () = self.changed.notified() => continue,
                () = tokio::time::sleep(patience.unwrap_or_default()), if patience.is_some() => {}
            }
            if self.is_idle() {
                return warn!("the end, without being asked: there are no containers");
            }
            self.sweep().await;
        }
    }

    /// When to look next whether anybody needs this process.
    fn patience(&self) -> Option<Duration> {
        let table = self.table();
        let waiting = |slot: &Slot| matches!(slot, Slot::Ready(task) if task.is_over());
        if self.unwanted.load(Ordering::Relaxed) || table.values().any(waiting) {
            Some(RETIRED)
        } else if table.is_empty() {
            Some(UNUSED)
        } else {
            None
        }
    }

    /// Removes containers that nobody knows of any more: containerd removes a
    /// bundle last, also when a Create comes back too late for whoever called it.
    async fn sweep(&self) {
        let tasks: Vec<_> = self
            .table()
            .iter()
            .map(|(id, slot)| (id.clone(), slot.clone()))
            .collect();
        for (id, slot) in tasks {
            let Slot::Ready(task) = slot else {
                continue;
            };
            if task.is_over() && !task.bundle().path().exists() && task.delete().await.is_ok() {
                warn!("container {id}: its bundle is gone, and so is it");
                self.removed(&id, task.bundle());
            }
        }
    }

    /// Forgets a container of which nothing is left.
    fn removed(&self, id: &str, bundle: &Bundle) {
        orphans::forget(&self.pod, bundle, id);
        let mut table = self.table();
        table.remove(id);
        if table.is_empty() {
            self.changed.notify_one();
        }
    }

    /// Whether no container is left.
    pub fn is_idle(&self) -> bool {
        self.tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A container that has been created.
    ///
    /// # Errors
    /// When there is none.
    pub fn task(&self, id: &str) -> Result<Arc<Task>, TaskError> {
        match self.table().get(id) {
            Some(Slot::Ready(task)) => Ok(task.clone()),
            _ => Err(TaskError::NotFound(format!("container {id}"))),
        }
    }

    /// A container's process: `exec`, or the first one if that is empty.
    ///
    /// # Errors
    /// When there is none.
    pub fn process(&self, id: &str, exec: &str) -> Result<Arc<Process>, TaskError> {
        self.task(id)?.process_of(exec)
    }

    /// Create.
    ///
    /// # Errors
    /// The reason; nothing is left of it.
    pub async fn create(&self, request: CreateTaskRequest) -> TtrpcResult<CreateTaskResponse> {
        let (id, bundle) = (request.id.clone(), Bundle::new(&request.bundle));
        let creation = Arc::new(Creation::default());
        {
            let mut table = self.table();
            if table.contains_key(&id) {
                return Err(TaskError::Exists(format!("container {id}")).into());
            }
            table.insert(id.clone(), Slot::Creating(creation.clone()));
        }
        let created = self.create_task(request, &creation).await;
        creation.ended.notify_waiters();
        match created {
            Ok(task) => {
                let pid = task.pid();
                self.table().insert(id, Slot::Ready(task));
                self.changed.notify_one();
                Ok(CreateTaskResponse {
                    pid,
                    ..CreateTaskResponse::default()
                })
            }
            Err(error) => {
                self.removed(&id, &bundle);
                Err(error)
            }
        }
    }

    /// Start, of a container or of what Exec has added to it.
    ///
    /// # Errors
    /// The reason.
    pub async fn start(&self, request: StartRequest) -> TtrpcResult<StartResponse> {
        let task = self.task(&request.id)?;
        let pid = match request.exec_id.as_str() {
            "" => {
                task.start().await?;
                task.pid()
            }
            exec => task.start_exec(exec, self).await?,
        };
        Ok(StartResponse {
            pid,
            ..StartResponse::default()
        })
    }

    /// Delete, of either. Cuts a Create short.
    ///
    /// # Errors
    /// When it runs, or is not there.
    pub async fn delete(&self, request: DeleteRequest) -> TtrpcResult<DeleteResponse> {
        let slot = self.table().get(&request.id).cloned();
        if let Some(Slot::Creating(creation)) = slot {
            // The caller of Create has gone away. Whoever asks next must find
            // neither the container nor what was made of it so far.
            let ended = creation.ended.notified();
            creation.cancel.notify_one();
            ended.await;
        }
        let task = self.task(&request.id)?;
        if !request.exec_id.is_empty() {
            let (pid, exit) = task.delete_exec(&request.exec_id).await?;
            return Ok(DeleteResponse {
                pid,
                exit_status: exit.as_ref().map(|exit| exit.status).unwrap_or_default(),
                exited_at: exit.map(|exit| exit.at).into(),
                ..DeleteResponse::default()
            });
        }
        let exit = task.delete().await?;
        self.removed(&request.id, task.bundle());
        Ok(DeleteResponse {
            pid: task.pid(),
            exit_status: exit.status,
            exited_at: MessageField::some(exit.at),
            ..DeleteResponse::default()
        })
    }

    /// Shutdown: the end is wanted, once there are no containers.
    pub fn retire(&self) {
        // The pod's other containers still need the daemon.
        if self.is_idle() {
            self.shutdown.notify_one();
        } else {
            self.unwanted.store(true, Ordering::Relaxed);
            self.changed.notify_one();
        }
    }
}
