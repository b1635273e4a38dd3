//! Calls on the further processes of a task.

use super::{Client, Streams};
use crate::wait::PATIENCE;
use anyhow::{Context, Result};
use containerd_client::services::v1::{
    CloseIoRequest, DeleteProcessRequest, ExecProcessRequest, GetRequest, KillRequest,
    ListPidsRequest, ResizePtyRequest, StartRequest, WaitRequest,
};
use containerd_client::types::v1::Status;
use prost::Message;
use prost_types::Any;
use serde_json::{Value, json};

/// A process of a task, by container and exec id. An empty exec id is the
/// first process.
#[derive(Clone, Debug)]
pub struct Exec<'c> {
    client: &'c Client,
    container: String,
    id: String,
}

/// containerd's `ProcessDetails`, which runc's shim sends about processes.
#[derive(Clone, PartialEq, Message)]
struct ProcessDetails {
    #[prost(string, tag = "1")]
    exec_id: String,
}

impl Client {
    /// The process `exec_id` of container `id`, whether it is there or not.
    pub fn process(&self, id: &str, exec_id: &str) -> Exec<'_> {
        Exec {
            client: self,
            container: id.to_owned(),
            id: exec_id.to_owned(),
        }
    }

    /// The task's processes, each with its exec id if the shim tells one.
    ///
    /// # Errors
    /// containerd's.
    pub fn processes(&self, id: &str) -> Result<Vec<(u32, Option<String>)>> {
        let request = self.request(ListPidsRequest {
            container_id: id.to_owned(),
        })?;
        self.call("pids", PATIENCE, self.tasks().list_pids(request))?
            .into_inner()
            .processes
            .into_iter()
            .map(|process| {
                let details = process
                    .info
                    .map(|info| ProcessDetails::decode(info.value.as_slice()))
                    .transpose()?;
                Ok((process.pid, details.map(|details| details.exec_id)))
            })
            .collect()
    }
}

impl Exec<'_> {
    /// Its exec id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Adds it, running `args` as root in `/` without capabilities.
    ///
    /// # Errors
    /// containerd's.
    pub fn add(&self, args: &[&str], streams: &Streams) -> Result<()> {
        let process = json!({
            "args": args,
            "cwd": "/",
            "env": ["PATH=/bin"],
            "user": { "uid": 0, "gid": 0 },
        });
        self.add_with(&process, streams)
    }

    /// Adds it by an OCI `Process`.
    ///
    /// # Errors
    /// containerd's.
    pub fn add_with(&self, process: &Value, streams: &Streams) -> Result<()> {
        let mut process = process.clone();
        if streams.terminal {
            process["terminal"] = true.into();
        }
        let request = self.client.request(ExecProcessRequest {
            container_id: self.container.clone(),
            exec_id: self.id.clone(),
            stdin: streams.stdin.clone(),
            stdout: streams.stdout.clone(),
            stderr: streams.stderr.clone(),
            terminal: streams.terminal,
            spec: Some(Any {
                type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".into(),
                value: serde_json::to_vec(&process)?,
            }),
        })?;
        let mut tasks = self.client.tasks();
        self.client.call("exec", PATIENCE, tasks.exec(request))?;
        Ok(())
    }

    /// Starts it; answers its pid.
    ///
    /// # Errors
    /// containerd's, which has the shim's reason.
    pub fn start(&self) -> Result<u32> {
        let request = self.client.request(StartRequest {
            container_id: self.container.clone(),
            exec_id: self.id.clone(),
        })?;
        let mut tasks = self.client.tasks();
        let call = tasks.start(request);
        Ok(self.client.call("start", PATIENCE, call)?.into_inner().pid)
    }

    /// Its status, pid and exit code.
    ///
    /// # Errors
    /// containerd's.
    pub fn state(&self) -> Result<(Status, u32, u32)> {
        let request = self.client.request(GetRequest {
            container_id: self.container.clone(),
            exec_id: self.id.clone(),
        })?;
        let mut tasks = self.client.tasks();
        let process = self
            .client
            .call("state", PATIENCE, tasks.get(request))?
            .into_inner()
            .process
            .context("state: the answer has no process")?;
        Ok((process.status(), process.pid, process.exit_status))
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// containerd's.
    pub fn kill(&self, signal: i32) -> Result<()> {
        let request = self.client.request(KillRequest {
            container_id: self.container.clone(),
            exec_id: self.id.clone(),
            signal: u32::try_from(signal)?,
            ..KillRequest::default()
        })?;
        let mut tasks = self.client.tasks();
        self.client.call("kill", PATIENCE, tasks.kill(request))?;
        Ok(())
    }

    /// Waits until it has ended; answers its exit code.
    ///
    /// # Errors
    /// containerd's, or that it does not end.
    pub fn wait(&self) -> Result<u32> {
        let request = self.client.request(WaitRequest {
            container_id: self.container.clone(),
            exec_id: self.id.clone(),
        })?;
        let mut tasks = self.client.tasks();
        let call = tasks.wait(request);
        Ok(self
            .client
            .call("wait", PATIENCE, call)?
            .into_inner()
            .exit_status)
    }

    /// Says that no more standard input will come.
    ///
    /// # Errors
    /// containerd's.
    pub fn close_stdin(&self) -> Result<()> {
        let request = self.client.request(CloseIoRequest {
            container_id: self.container.clone(),
            exec_id: self.id.clone(),
            stdin: true,
        })?;
        let mut tasks = self.client.tasks();
        self.client
            .call("close io", PATIENCE, tasks.close_io(request))?;
        Ok(())
    }

    /// Says how large its terminal is.
    ///
    /// # Errors
    /// containerd's.
    pub fn resize(&self, width: u32, height: u32) -> Result<()> {
        let request = self.client.request(ResizePtyRequest {
            container_id: self.container.clone(),
            exec_id: self.id.clone(),
            width,
            height,
        })?;
        let mut tasks = self.client.tasks();
        self.client
            .call("resize", PATIENCE, tasks.resize_pty(request))?;
        Ok(())
    }

    /// Deletes it; answers its exit code.
    ///
    /// # Errors
    /// containerd's.
    pub fn delete(&self) -> Result<u32> {
        let request = self.client.request(DeleteProcessRequest {
            container_id: self.container.clone(),
            exec_id: self.id.clone(),
        })?;
        let mut tasks = self.client.tasks();
        let call = tasks.delete_process(request);
        Ok(self
            .client
            .call("delete", PATIENCE, call)?
            .into_inner()
            .exit_status)
    }
}
