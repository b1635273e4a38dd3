//! Calls about what a task uses and whether it may run.

use super::Client;
use crate::wait::PATIENCE;
use anyhow::{Context, Result};
use containerd_client::services::v1::{
    CheckpointTaskRequest, MetricsRequest, PauseTaskRequest, ResumeTaskRequest, UpdateTaskRequest,
};
use prost_types::Any;
use serde_json::Value;

impl Client {
    /// Stops all processes of the task.
    ///
    /// # Errors
    /// containerd's.
    pub fn pause(&self, id: &str) -> Result<()> {
        let request = self.request(PauseTaskRequest {
            container_id: id.to_owned(),
        })?;
        self.call("pause", PATIENCE, self.tasks().pause(request))?;
        Ok(())
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// containerd's.
    pub fn resume(&self, id: &str) -> Result<()> {
        let request = self.request(ResumeTaskRequest {
            container_id: id.to_owned(),
        })?;
        self.call("resume", PATIENCE, self.tasks().resume(request))?;
        Ok(())
    }

    /// Sets limits: OCI `LinuxResources`.
    ///
    /// # Errors
    /// containerd's.
    pub fn update(&self, id: &str, resources: &Value) -> Result<()> {
        self.update_raw(id, serde_json::to_vec(resources)?)
    }

    /// Sets limits by something that may not be JSON.
    ///
    /// # Errors
    /// containerd's.
    pub fn update_raw(&self, id: &str, value: Vec<u8>) -> Result<()> {
        let request = self.request(UpdateTaskRequest {
            container_id: id.to_owned(),
            resources: Some(Any {
                type_url: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".into(),
                value,
            }),
            ..UpdateTaskRequest::default()
        })?;
        self.call("update", PATIENCE, self.tasks().update(request))?;
        Ok(())
    }

    /// Saves the task's state, which no shim here can.
    ///
    /// # Errors
    /// containerd's.
    pub fn checkpoint(&self, id: &str) -> Result<()> {
        let request = self.request(CheckpointTaskRequest {
            container_id: id.to_owned(),
            ..CheckpointTaskRequest::default()
        })?;
        self.call("checkpoint", PATIENCE, self.tasks().checkpoint(request))?;
        Ok(())
    }

    /// The task's metrics as the shim encoded them: type and message.
    ///
    /// # Errors
    /// containerd's; it leaves out tasks that cannot be measured.
    pub fn metrics(&self, id: &str) -> Result<Any> {
        let request = self.request(MetricsRequest {
            filters: vec![format!("id=={id}")],
        })?;
        self.call("metrics", PATIENCE, self.tasks().metrics(request))?
            .into_inner()
            .metrics
            .into_iter()
            .find(|metric| metric.id == id)
            .and_then(|metric| metric.data)
            .context("metrics: NotFound: none of this task")
    }
}
