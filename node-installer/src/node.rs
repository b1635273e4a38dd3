//! The Node object: what is reported there, and read.

use serde_json::{Value, json};
use wisp_install::CLI;

use crate::args::DaemonSet;
use crate::kubernetes::{Api, ApiError, Send};
use crate::time;

/// On nodes where pods of wisp run; the RuntimeClass asks for it.
pub const READY: &str = "wisp.io/ready";
/// How it went, in JSON.
pub const STATUS: &str = "wisp.io/status";

/// Whose fields of the object these are.
const MANAGER: &str = "wisp-node-installer";
/// The longest text of an event that the API server takes is 1024 bytes.
const LONGEST: usize = 1000;

/// What is said of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Whether pods may come.
    pub ready: bool,
    /// The annotation's text; `None` for no annotation.
    pub status: Option<String>,
}

impl Report {
    /// `state` is a word of ours; `more` are versions and paths.
    pub fn new(ready: bool, state: &str, message: &str, more: Value) -> Self {
        let mut status = json!({
            "state": state,
            "since": time::rfc3339(time::now()),
        });
        if !message.is_empty() {
            status["message"] = short(message).into();
        }
        if let (Some(status), Value::Object(more)) = (status.as_object_mut(), more) {
            status.extend(more);
        }
        Self {
            ready,
            status: Some(status.to_string()),
        }
    }

    /// That nothing is there.
    pub fn none() -> Self {
        Self {
            ready: false,
            status: None,
        }
    }
}

/// What the API server has of a node.
#[derive(Debug)]
struct Metadata {
    uid: String,
    ready: Option<String>,
    status: Option<String>,
}

/// A node's object.
pub struct Node<'a> {
    pub api: &'a Api,
    name: &'a str,
}

impl<'a> Node<'a> {
    /// The node called `name`.
    pub fn new(api: &'a Api, name: &'a str) -> Self {
        Self { api, name }
    }

    fn path(&self) -> String {
        format!("/api/v1/nodes/{}", self.name)
    }

    async fn metadata(&self) -> Result<Metadata, ApiError> {
        let node = self.api.call(&self.path(), Send::GetMetadata).await?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let metadata = &node["metadata"];
        Ok(Metadata {
            uid: text(&metadata["uid"]).unwrap_or_default(),
            ready: text(&metadata["labels"][READY]),
            status: text(&metadata["annotations"][STATUS]),
        })
    }

    /// Whether the object may be told anything.
    ///
    /// # Errors
    /// The API server's.
    pub async fn may_say(&self) -> Result<(), ApiError> {
        let found = self.metadata().await?;
        let patch = json!({ "metadata": {
            "labels": { READY: found.ready },
            "annotations": { STATUS: found.status },
        }});
        let path = format!("{}?dryRun=All&fieldManager={MANAGER}", self.path());
        self.api.call(&path, Send::Patch(patch)).await.map(drop)
    }

    /// Makes the object say what `report` says; answers whether it did not.
    ///
    /// # Errors
    /// The API server's.
    pub async fn say(&self, report: &Report) -> Result<bool, ApiError> {
        let found = self.metadata().await?;
        let wanted = report.ready.then_some("true");
        if found.ready.as_deref() == wanted && found.status == report.status {
            return Ok(false);
        }
        // Null takes a key away.
        let patch = json!({ "metadata": {
            "labels": { READY: wanted },
            "annotations": { STATUS: report.status },
        }});
        self.api
            .call(
                &format!("{}?fieldManager={MANAGER}", self.path()),
                Send::Patch(patch),
            )
            .await?;
        Ok(true)
    }

    /// An event of the node, for `kubectl describe node`.
    ///
    /// # Errors
    /// The API server's.
    pub async fn event(&self, warning: bool, reason: &str, message: &str) -> Result<(), ApiError> {
        let uid = self.metadata().await?.uid;
        let now = time::rfc3339(time::now());
        let kind = if warning { "Warning" } else { "Normal" };
        let event = json!({
            "apiVersion": "v1",
            "kind": "Event",
            // Events of what is in no namespace are in this one.
            "metadata": { "generateName": format!("{}.", self.name), "namespace": "default" },
            "involvedObject": { "apiVersion": "v1", "kind": "Node", "name": self.name, "uid": uid },
            "source": { "component": "wisp-node-installer", "host": self.name },
            "reportingComponent": "wisp.io/node-installer",
            "reportingInstance": self.name,
            "type": kind,
            "reason": reason,
            "message": short(&format!("{CLI}: {message}")),
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        });
        let path = "/api/v1/namespaces/default/events";
        self.api.call(path, Send::Post(event)).await.map(drop)
    }

    /// Whether the DaemonSet that this program belongs to is deleted, or on its
    /// way: it is not there, is being deleted, or, deleted with it, our rights
    /// are not there any more. Only what the API server says counts.
    pub async fn is_retired(&self, set: &DaemonSet) -> Option<bool> {
        let path = daemon_set(set)?;
        match self.api.call(&path, Send::GetMetadata).await {
            Ok(found) => Some(!found["metadata"]["deletionTimestamp"].is_null()),
            Err(ApiError::Refused(401 | 403 | 404, _)) => Some(true),
            Err(_) => None,
        }
    }
}

/// The path of a DaemonSet, if it has a name.
pub fn daemon_set(set: &DaemonSet) -> Option<String> {
    let name = set.daemonset.as_ref()?;
    Some(format!(
        "/apis/apps/v1/namespaces/{}/daemonsets/{name}",
        set.namespace
    ))
}

/// As much of a text as fits, in whole characters.
fn short(text: &str) -> String {
    if text.len() <= LONGEST {
        return text.to_owned();
    }
    let mut end = LONGEST;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_what_it_was_given_and_is_short() {
        let report = Report::new(
            false,
            "failed",
            &"ä".repeat(9000),
            json!({"version": "1.2.3"}),
        );
        let status: Value =
            serde_json::from_str(&report.status.expect("an annotation")).expect("JSON");
        assert_eq!(status["state"], "failed");
        assert_eq!(status["version"], "1.2.3");
        assert!(status["message"].as_str().is_some_and(|m| m.len() < 1024));
        assert!(
            status["since"]
                .as_str()
                .is_some_and(|text| text.ends_with('Z'))
        );
    }
}
