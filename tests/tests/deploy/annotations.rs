//! What the samples' pods ask for.

use super::{kustomizations, objects};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use wisp_capability::{Policy, Request, Volume, annotation, grant};

pub fn are_understood() -> Result<()> {
    let mut seen = BTreeSet::new();
    for (name, text) in kustomizations::files()? {
        for object in objects::valid(&text)? {
            let Some(spec) = kustomizations::pod_spec(&object) else {
                continue;
            };
            let metadata = metadata(&object);
            let all: BTreeMap<String, String> = match &metadata["annotations"] {
                Value::Null => BTreeMap::new(),
                some => serde_json::from_value(some.clone())?,
            };
            seen.extend(
                all.keys()
                    .filter(|key| key.starts_with(annotation::PREFIX))
                    .cloned(),
            );
            for container in spec["containers"].as_array().into_iter().flatten() {
                asked(&all, container).with_context(|| name.clone())?;
            }
        }
    }
    ensure!(seen.len() >= 12, "only {seen:?}");
    Ok(())
}

fn metadata(object: &Value) -> &Value {
    let spec = &object["spec"];
    match object["kind"].as_str() {
        Some("CronJob") => &spec["jobTemplate"]["spec"]["template"]["metadata"],
        Some("Pod") => &object["metadata"],
        _ => &spec["template"]["metadata"],
    }
}

fn asked(all: &BTreeMap<String, String>, container: &Value) -> Result<()> {
    let annotations = all
        .iter()
        .filter(|(key, _)| key.starts_with(annotation::PREFIX))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let mounts: Vec<Volume> = container["volumeMounts"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|mount| Volume {
            destination: mount["mountPath"].as_str().unwrap_or_default().to_owned(),
            read_only: mount["readOnly"] == true,
            is_dir: true,
        })
        .collect();
    grant(&Request {
        args: &["/app.wasm".to_owned()],
        env: &[],
        cwd: "/",
        annotations: &annotations,
        mounts: &mounts,
        root_readonly: false,
        host_network: false,
        memory_limit: Some(64 << 20),
        namespace: "default",
        policy: &Policy::default(),
    })?;
    Ok(())
}
