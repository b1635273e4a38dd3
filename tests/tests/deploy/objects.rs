//! YAML as Kubernetes' own types have it.

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The documents of a file, each a valid object.
///
/// # Errors
/// A field that the API does not have, or not so.
pub fn valid(text: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("YAML")?;
    let objects: Vec<Value> = documents.into_iter().filter(|one| !one.is_null()).collect();
    for object in &objects {
        let title = format!("{} {}", object["kind"], object["metadata"]["name"]);
        check(object).with_context(|| title)?;
    }
    Ok(objects)
}

/// The object of a kind and a name.
///
/// # Errors
/// When there is none.
pub fn find<'o>(objects: &'o [Value], kind: &str, name: &str) -> Result<&'o Value> {
    objects
        .iter()
        .find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
        .with_context(|| format!("no {kind} {name}"))
}

fn check(object: &Value) -> Result<()> {
    let text = |name: &str| object[name].as_str().unwrap_or_default();
    match (text("apiVersion"), text("kind")) {
        ("v1", "ConfigMap") => strictly::<api::core::v1::ConfigMap>(object),
        ("v1", "Namespace") => strictly::<api::core::v1::Namespace>(object),
        ("v1", "Pod") => strictly::<api::core::v1::Pod>(object),
        ("v1", "ResourceQuota") => strictly::<api::core::v1::ResourceQuota>(object),
        ("v1", "Secret") => strictly::<api::core::v1::Secret>(object),
        ("v1", "Service") => strictly::<api::core::v1::Service>(object),
        ("v1", "ServiceAccount") => strictly::<api::core::v1::ServiceAccount>(object),
        ("apps/v1", "DaemonSet") => strictly::<api::apps::v1::DaemonSet>(object),
        ("apps/v1", "Deployment") => strictly::<api::apps::v1::Deployment>(object),
        ("autoscaling/v2", "HorizontalPodAutoscaler") => {
            strictly::<api::autoscaling::v2::HorizontalPodAutoscaler>(object)
        }
        ("batch/v1", "CronJob") => strictly::<api::batch::v1::CronJob>(object),
        ("batch/v1", "Job") => strictly::<api::batch::v1::Job>(object),
        ("node.k8s.io/v1", "RuntimeClass") => strictly::<api::node::v1::RuntimeClass>(object),
        ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy") => {
            strictly::<api::admissionregistration::v1::ValidatingAdmissionPolicy>(object)
        }
        ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding") => {
            strictly::<api::admissionregistration::v1::ValidatingAdmissionPolicyBinding>(object)
        }
        ("rbac.authorization.k8s.io/v1", kind) => match kind {
            "ClusterRole" => strictly::<api::rbac::v1::ClusterRole>(object),
            "ClusterRoleBinding" => strictly::<api::rbac::v1::ClusterRoleBinding>(object),
            "Role" => strictly::<api::rbac::v1::Role>(object),
            "RoleBinding" => strictly::<api::rbac::v1::RoleBinding>(object),
            other => bail!("no {other} is known here"),
        },
        (version, kind) => bail!("no {kind} of {version} is known here"),
    }
}

/// What the type does not know it does not give back.
fn strictly<T: DeserializeOwned + Serialize>(object: &Value) -> Result<()> {
    let typed: T = serde_json::from_value(object.clone())?;
    let back = serde_json::to_value(typed)?;
    same(object, &back, "")
}

fn same(given: &Value, back: &Value, path: &str) -> Result<()> {
    match (given, back) {
        (Value::Object(given), Value::Object(back)) => {
            for (name, value) in given.iter().filter(|(_, value)| !value.is_null()) {
                let path = format!("{path}.{name}");
                let found = back.get(name).with_context(|| format!("no field {path}"))?;
                same(value, found, &path)?;
            }
        }
        (Value::Array(given), Value::Array(back)) => {
            ensure!(given.len() == back.len(), "{path}: another length");
            for (index, (given, back)) in given.iter().zip(back).enumerate() {
                same(given, back, &format!("{path}[{index}]"))?;
            }
        }
        (given, back) => ensure!(given == back, "{path}: {given} became {back}"),
    }
    Ok(())
}
