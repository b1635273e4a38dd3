//! What kubelet would ask containerd.

use std::path::Path;
use std::time::Duration;

use k8s_cri::v1::StatusRequest;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use serde_json::Value;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The runtimes that pods can name, once pods can be made.
///
/// # Errors
/// What is not ready, in one line.
pub fn runtimes(socket: &Path) -> Result<Vec<String>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let asked = runtime.block_on(async {
        tokio::time::timeout(PATIENCE, async {
            let channel = containerd_client::connect(socket)
                .await
                .map_err(|error| crate::text(&error.into()))?;
            RuntimeServiceClient::new(channel)
                .status(StatusRequest { verbose: true })
                .await
                .map_err(|status| format!("{:?}: {}", status.code(), status.message()))
        })
        .await
    });
    let said = asked.map_err(|_| "no answer".to_owned())??.into_inner();
    let conditions = said.status.unwrap_or_default().conditions;
    // The network's plugin may be a pod itself, which comes later.
    if let Some(bad) = conditions
        .iter()
        .find(|condition| condition.r#type == "RuntimeReady" && !condition.status)
    {
        return Err(format!("{}: {}", bad.reason, bad.message));
    }
    let mut names: Vec<String> = said
        .runtime_handlers
        .into_iter()
        .map(|handler| handler.name)
        .collect();
    if let Some(config) = said.info.get("config") {
        let config: Value = serde_json::from_str(config).unwrap_or_default();
        let listed = config["containerd"]["runtimes"].as_object();
        names.extend(listed.into_iter().flat_map(|all| all.keys().cloned()));
    }
    names.sort();
    names.dedup();
    names.retain(|name| !name.is_empty());
    Ok(names)
}
