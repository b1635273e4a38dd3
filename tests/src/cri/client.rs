//! The calls of the CRI, blocking.

use super::api::image_service_client::ImageServiceClient;
use super::api::runtime_service_client::RuntimeServiceClient;
use crate::Containerd;
use crate::wait::{self, PATIENCE};
use anyhow::{Context, Result, anyhow};
use containerd_client::tonic::transport::Channel;
use containerd_client::tonic::{Response, Status};
use std::future::Future;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// A connection to one containerd's CRI.
#[derive(Debug)]
pub struct Client {
    runtime: Runtime,
    channel: Channel,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// When nothing answers at the socket.
    pub fn connect(node: &Containerd) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let channel = runtime
            .block_on(containerd_client::connect(node.socket()))
            .with_context(|| format!("connect to {}", node.socket().display()))?;
        Ok(Self { runtime, channel })
    }

    /// Makes a call of the runtime service, such as
    /// `client.call("…", async |mut to| to.version(request).await)`.
    ///
    /// # Errors
    /// containerd's words, or that no answer came.
    pub fn call<T, F>(
        &self,
        what: &str,
        call: impl FnOnce(RuntimeServiceClient<Channel>) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.call_within(what, PATIENCE * 2, call)
    }

    /// [`Self::call`] with its own patience, for calls that take long.
    ///
    /// # Errors
    /// As there.
    pub fn call_within<T, F>(
        &self,
        what: &str,
        patience: Duration,
        call: impl FnOnce(RuntimeServiceClient<Channel>) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let client = RuntimeServiceClient::new(self.channel.clone());
        self.finish(what, patience, call(client))
    }

    /// Makes a call of the image service.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn images<T, F>(
        &self,
        what: &str,
        call: impl FnOnce(ImageServiceClient<Channel>) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let client = ImageServiceClient::new(self.channel.clone());
        self.finish(what, PATIENCE, call(client))
    }

    fn finish<T>(
        &self,
        what: &str,
        patience: Duration,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T> {
        let patience = wait::here(patience);
        self.runtime
            .block_on(async { tokio::time::timeout(patience, answer).await })
            .map_err(|_| anyhow!("{what}: no answer within {patience:?}"))?
            .map(Response::into_inner)
            .map_err(|status| anyhow!("{what}: {:?}: {}", status.code(), status.message()))
    }
}
