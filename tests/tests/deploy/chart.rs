//! The chart.

use super::objects;
use super::tools;
use anyhow::{Context, Result, ensure};

/// Values as people set them.
pub const VALUES: [&[&str]; 9] = [
    &[],
    &["distribution=k3s"],
    &["distribution=microk8s", "cacheWatch.enabled=true"],
    &[
        "image.repository=example.com/wisp",
        "image.tag=v1",
        "image.pullPolicy=Always",
        "imagePullSecrets[0].name=registry",
    ],
    &[
        "runtimeClass.create=false",
        "quota.create=false",
        "retire.enabled=false",
        "priorityClassName=",
    ],
    &["admissionPolicy.create=false"],
    &[
        "runtimeClass.name=wasm",
        "runtimeClass.overhead.memory=8Mi",
        "runtimeClass.overhead.cpu=5m",
        "runtimeClass.tolerations[0].operator=Exists",
    ],
    &[
        "installer.mode=uninstall",
        "installer.onStop=keep",
        "installer.interval=5",
        "installer.wait=600",
        "installer.address=/run/x.sock",
        "installer.programs=/data/wisp",
        "installer.state=/data/state",
        "installer.restart=rc-service containerd restart",
    ],
    &[
        "nodeSelector.pool=wasm",
        "tolerations=null",
        "podAnnotations=null",
        "updateStrategy.type=OnDelete",
        "updateStrategy.rollingUpdate=null",
        "affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution=null",
    ],
];

pub fn lint() -> Result<()> {
    for values in VALUES {
        let sets = sets(values);
        let arguments = [
            &["lint", "--strict", "helm/wisp", "--kube-version", "1.33.0"],
            &*sets,
        ]
        .concat();
        tools::output("helm", &arguments).with_context(|| format!("{values:?}"))?;
    }
    Ok(())
}

/// The values as helm is told them.
pub fn sets<'v>(values: &[&'v str]) -> Vec<&'v str> {
    values.iter().flat_map(|value| ["--set", value]).collect()
}

pub fn renderings() -> Result<()> {
    for values in VALUES {
        let text = tools::template(&sets(values))?;
        let objects = objects::valid(&text).with_context(|| format!("{values:?}"))?;
        objects::find(&objects, "DaemonSet", "wisp-node-installer")?;
        ensure!(objects.len() >= 7, "{values:?}: {} objects", objects.len());
    }
    Ok(())
}

pub fn refused() -> Result<()> {
    for (value, says) in [
        ("distribtion=k3s", "distribtion"),
        ("distribution=slackware", "distribution"),
        ("installer.interval=0", "interval"),
        ("installer.interval=often", "interval"),
        ("installer.mode=maybe", "mode"),
        ("installer.address=run/x", "address"),
        ("runtimeClass.overhead.memory=much", "memory"),
        ("runtimeClass.name=Wisp!", "name"),
        ("image.repository=", "repository"),
        ("cacheWatch.enabled=perhaps", "enabled"),
    ] {
        let ended = tools::run(
            "helm",
            &[
                "template",
                "x",
                "helm/wisp",
                "--kube-version",
                "1.33.0",
                "--set",
                value,
            ],
        )?;
        ensure!(ended.code != 0, "{value} was taken");
        ensure!(ended.err().contains(says), "{value}: {}", ended.err());
    }
    Ok(())
}
