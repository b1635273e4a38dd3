//! Many containers like one: without `ctr`, whose own start costs more than a
//! container's.

use super::Client;
use crate::wait::PATIENCE;
use anyhow::{Context, Result};
use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{
    PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
};
use containerd_client::services::v1::{CreateContainerRequest, DeleteContainerRequest};
use prost_types::Any;
use serde_json::Value;

impl Client {
    /// Creates the container `copy`, which is in all but its name and its cgroup
    /// as `id` is.
    ///
    /// # Errors
    /// containerd's.
    pub fn copy(&self, id: &str, copy: &str) -> Result<()> {
        let mut container = self.container(id)?;
        let mut snapshots = SnapshotsClient::new(self.channel.clone());
        let request = self.request(StatSnapshotRequest {
            snapshotter: container.snapshotter.clone(),
            key: container.snapshot_key.clone(),
        })?;
        let parent = self
            .call("stat snapshot", PATIENCE, snapshots.stat(request))?
            .into_inner()
            .info
            .context("the snapshot has no record")?
            .parent;
        let request = self.request(PrepareSnapshotRequest {
            snapshotter: container.snapshotter.clone(),
            key: copy.to_owned(),
            parent,
            labels: [("containerd.io/gc.root".to_owned(), "copy".to_owned())].into(),
        })?;
        self.call("prepare snapshot", PATIENCE, snapshots.prepare(request))?;
        copy.clone_into(&mut container.id);
        copy.clone_into(&mut container.snapshot_key);
        if let Some(old) = container.spec.take() {
            let mut spec: Value = serde_json::from_slice(&old.value)?;
            let path = spec["linux"]["cgroupsPath"].as_str().unwrap_or_default();
            spec["linux"]["cgroupsPath"] = match path.rsplit_once('/') {
                Some((parent, _)) => format!("{parent}/{copy}").into(),
                None => format!("/{copy}").into(),
            };
            container.spec = Some(Any {
                type_url: old.type_url,
                value: serde_json::to_vec(&spec)?,
            });
        }
        let request = self.request(CreateContainerRequest {
            container: Some(container),
        })?;
        let mut containers = ContainersClient::new(self.channel.clone());
        self.call("create container", PATIENCE, containers.create(request))?;
        Ok(())
    }

    /// Removes such a container and its file system.
    ///
    /// # Errors
    /// containerd's; it may be asked again.
    pub fn remove_copy(&self, id: &str) -> Result<()> {
        let found = self.container(id);
        if let Ok(container) = found {
            let request = self.request(DeleteContainerRequest { id: id.to_owned() })?;
            let mut containers = ContainersClient::new(self.channel.clone());
            self.call("delete container", PATIENCE, containers.delete(request))?;
            let request = self.request(RemoveSnapshotRequest {
                snapshotter: container.snapshotter,
                key: id.to_owned(),
            })?;
            let mut snapshots = SnapshotsClient::new(self.channel.clone());
            self.call("remove snapshot", PATIENCE, snapshots.remove(request))?;
        }
        Ok(())
    }
}
