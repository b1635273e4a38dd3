//! The base, its overlays, and the samples.

use super::objects;
use super::tools;
use anyhow::{Context, Result, ensure};
use std::fs;

pub fn samples() -> Result<()> {
    let mut count = 0;
    for (name, text) in files()? {
        let found = objects::valid(&text).with_context(|| name.clone())?;
        for object in &found {
            let wisp = pod_spec(object).is_none_or(|spec| spec["runtimeClassName"] == "wisp");
            ensure!(wisp, "{name}: a pod of another class");
        }
        count += found.len();
    }
    ensure!(count >= 9, "only {count} objects");
    // What these tests would let pass, they would not notice elsewhere.
    let text = &files()?[0].1;
    let wrong = text.replacen("runtimeClassName", "runtimeClasName", 1);
    let error = objects::valid(&wrong)
        .err()
        .context("a wrong field passed")?;
    ensure!(
        format!("{error:#}").contains("runtimeClasName"),
        "{error:#}"
    );
    Ok(())
}

/// The samples: their names and what is in them.
pub fn files() -> Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(tools::deploy("samples"))? {
        let path = entry?.path();
        all.push((path.display().to_string(), fs::read_to_string(&path)?));
    }
    all.sort();
    Ok(all)
}

/// The specification of the pods that an object is or makes.
pub fn pod_spec(object: &serde_json::Value) -> Option<&serde_json::Value> {
    let spec = &object["spec"];
    match object["kind"].as_str()? {
        "Pod" => Some(spec),
        "Deployment" | "DaemonSet" | "Job" => Some(&spec["template"]["spec"]),
        "CronJob" => Some(&spec["jobTemplate"]["spec"]["template"]["spec"]),
        _ => None,
    }
}

/// The base and its overlays.
pub fn names() -> Result<Vec<String>> {
    let mut names = vec!["base".to_owned()];
    for entry in fs::read_dir(tools::deploy("overlays"))? {
        names.push(format!("overlays/{}", entry?.file_name().to_string_lossy()));
    }
    ensure!(names.len() >= 8, "{names:?}");
    Ok(names)
}

pub fn overlays() -> Result<()> {
    let names = names()?;
    let base = tools::build("base")?;
    for name in &names {
        let text = tools::build(name)?;
        let objects = objects::valid(&text).with_context(|| name.clone())?;
        ensure!(
            name == "base" || text != base,
            "{name} changes nothing of the base"
        );
        let set = objects::find(&objects, "DaemonSet", "wisp-node-installer")?;
        let spec = pod_spec(set).context("no pods")?;
        for container in spec["containers"].as_array().into_iter().flatten() {
            let image = container["image"].as_str().unwrap_or_default();
            ensure!(image.contains('/'), "{name}: the image {image}");
        }
        let class = objects::find(&objects, "RuntimeClass", "wisp")?;
        ensure!(class["handler"] == "wisp", "{class}");
        ensure!(
            class["scheduling"]["nodeSelector"]["wisp.io/ready"] == "true",
            "{class}"
        );
    }
    Ok(())
}
