//! What must agree: the chart with the base, both with the program, and the
//! versions with each other.

use super::kustomizations::pod_spec;
use super::objects::{find, valid};
use super::tools;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;
use wisp_tests::{command, paths};

const NAME: &str = "wisp-node-installer";

/// Who may do what, in which namespace.
fn rules(objects: &[Value]) -> BTreeSet<String> {
    let roles = objects.iter().filter(|object| {
        ["Role", "ClusterRole"]
            .iter()
            .any(|kind| object["kind"] == *kind)
    });
    roles
        .map(|role| json!([role["metadata"]["namespace"], role["rules"]]).to_string())
        .collect()
}

pub fn rights() -> Result<()> {
    let base = rules(&valid(&tools::build("base")?)?);
    let chart = rules(&valid(&tools::template(&[])?)?);
    ensure!(base == chart, "{base:#?}\n{chart:#?}");
    // Nothing more without somebody's asking why.
    let needed = [
        json!([null, [{ "apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "patch"] }]]),
        json!(["default", [{ "apiGroups": [""], "resources": ["events"], "verbs": ["create"] }]]),
        json!(["wisp-system", [{
            "apiGroups": ["apps"], "resources": ["daemonsets"],
            "resourceNames": [NAME], "verbs": ["get", "delete"],
        }]]),
    ];
    let needed: BTreeSet<String> = needed.iter().map(Value::to_string).collect();
    ensure!(base == needed, "{base:#?}");

    let specs = |text: &str| -> Result<Vec<Value>> {
        let objects = valid(text)?;
        let kinds = [
            "ValidatingAdmissionPolicy",
            "ValidatingAdmissionPolicyBinding",
        ];
        let found = kinds.map(|kind| find(&objects, kind, NAME).map(|found| &found["spec"]));
        found.into_iter().map(|spec| Ok(spec?.clone())).collect()
    };
    let (base, chart) = (tools::build("base")?, tools::template(&[])?);
    ensure!(specs(&base)? == specs(&chart)?, "another policy");
    let without = tools::template(&["--set", "admissionPolicy.create=false"])?;
    ensure!(specs(&without).is_err(), "a policy that nobody wanted");
    Ok(())
}

fn installer(text: &str) -> Result<Value> {
    let objects = valid(text)?;
    let set = find(&objects, "DaemonSet", NAME)?;
    let spec = pod_spec(set).context("no pods")?;
    Ok(spec.clone())
}

pub fn programs() -> Result<()> {
    let base = installer(&tools::build("base")?)?;
    let chart = installer(&tools::template(&[])?)?;
    for field in [
        "hostPID",
        "priorityClassName",
        "serviceAccountName",
        "terminationGracePeriodSeconds",
        "tolerations",
        "volumes",
    ] {
        ensure!(
            base[field] == chart[field],
            "{field}: {} {}",
            base[field],
            chart[field]
        );
    }
    let (base, chart) = (&base["containers"][0], &chart["containers"][0]);
    for field in [
        "args",
        "image",
        "livenessProbe",
        "ports",
        "readinessProbe",
        "resources",
        "securityContext",
        "volumeMounts",
    ] {
        ensure!(
            base[field] == chart[field],
            "{field}: {} {}",
            base[field],
            chart[field]
        );
    }
    // And where distributions have containerd.
    for distribution in ["k3s", "rke2", "k0s", "microk8s"] {
        let overlay = installer(&tools::build(&format!("overlays/{distribution}"))?)?;
        let set = format!("distribution={distribution}");
        let chart = installer(&tools::template(&["--set", &set])?)?;
        let address = |spec: &Value| {
            let env = spec["containers"][0]["env"].as_array().cloned();
            let all = env.unwrap_or_default().into_iter();
            all.filter(|one| one["name"] == "WISP_ADDRESS")
                .map(|one| one["value"].to_string())
                .next()
        };
        ensure!(
            address(&overlay).is_some() && address(&overlay) == address(&chart),
            "{distribution}: {:?} {:?}",
            address(&overlay),
            address(&chart)
        );
    }
    Ok(())
}

fn help(action: &str) -> Result<String> {
    let mut program = Command::new(paths::installer());
    program.args([action, "--help"]);
    let said = command::run(&mut program, Vec::new(), Duration::from_secs(10))?;
    ensure!(said.code == 0, "{said:?}");
    Ok(said.out())
}

pub fn environment() -> Result<()> {
    let all = [
        "installer.programs=/p",
        "installer.state=/s",
        "installer.restart=r",
        "distribution=k3s",
    ];
    let sets: Vec<&str> = all.iter().flat_map(|value| ["--set", value]).collect();
    let help = help("run")?;
    for text in [
        tools::template(&sets)?,
        tools::build("overlays/k3s")?,
        tools::build("overlays/uninstall")?,
    ] {
        let spec = installer(&text)?;
        let env = spec["containers"][0]["env"].as_array().cloned();
        for variable in env.context("no environment")? {
            let name = variable["name"].as_str().unwrap_or_default();
            ensure!(
                help.contains(&format!("[env: {name}=")),
                "{name} is not read"
            );
        }
    }
    Ok(())
}

pub fn versions() -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let chart = fs::read_to_string(tools::deploy("helm/wisp/Chart.yaml"))?;
    for line in [
        format!("version: {version}"),
        format!("appVersion: {version}"),
    ] {
        ensure!(
            chart.lines().any(|found| found == line),
            "Chart.yaml: no {line}"
        );
    }
    for text in [tools::build("overlays/cache-watch")?, tools::template(&[])?] {
        let spec = installer(&text)?;
        for container in spec["containers"].as_array().into_iter().flatten() {
            let image = container["image"].as_str().unwrap_or_default();
            ensure!(image.ends_with(&format!(":{version}")), "{image}");
        }
    }
    Ok(())
}
