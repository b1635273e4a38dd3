//! What an API server says to it: every object is sent to be checked as if it were
//! to be kept (`--dry-run=server --validate=strict`).

use super::{chart, kustomizations, tools};
use anyhow::{Context, Result, ensure};
use std::net::Ipv4Addr;
use std::ops::Deref;
use tempfile::TempDir;
use wisp_tests::kubernetes::{Control, Kubectl};

const NAMESPACE: &str = "wisp-system";
/// Another, where the base is not in the chart's way.
const OTHER: &str = "wisp-chart";

/// An API server that has the base, without anything that acts on it.
pub struct Served {
    control: Control,
    _dir: TempDir,
}

impl Deref for Served {
    type Target = Control;

    fn deref(&self) -> &Control {
        &self.control
    }
}

/// Starts it.
///
/// # Errors
/// When it does not come up, or does not take the base.
pub fn start() -> Result<Served> {
    let dir = tempfile::Builder::new().prefix("wisp-api-").tempdir()?;
    let control = Control::start(dir.path(), dir.path(), Ipv4Addr::LOCALHOST)?;
    let kubectl = control.kubectl();
    // Else a controller's work: no pod is without an account.
    kubectl.ok(&["create", "serviceaccount", "default"])?;
    control.until_there(&["priorityclass", "system-node-critical"])?;
    // What is checked must have its namespace, and pods their class.
    kubectl.take(&["apply", "-f", "-"], &tools::build("base")?)?;
    kubectl.ok(&["create", "namespace", OTHER])?;
    Ok(Served { control, _dir: dir })
}

fn check(kubectl: &Kubectl, text: &str) -> Result<usize> {
    let said = kubectl.take(
        &[
            "apply",
            "--dry-run=server",
            "--validate=strict",
            "--filename=-",
        ],
        text,
    )?;
    let count = said.lines().count();
    for line in said.lines() {
        ensure!(line.ends_with("(server dry run)"), "{line}");
    }
    Ok(count)
}

/// kubectl has a kustomize of its own, of another version.
pub fn kustomizations(api: &Served) -> Result<()> {
    let kubectl = api.kubectl();
    for name in kustomizations::names()? {
        let path = tools::deploy(&name);
        let text = kubectl.ok(&["kustomize", &path.to_string_lossy()])?;
        let count = check(kubectl, &text).with_context(|| name.clone())?;
        ensure!(count >= 11, "{name}: {count} objects");
    }
    Ok(())
}

pub fn renderings(api: &Served) -> Result<()> {
    for values in chart::VALUES {
        let more = [&*chart::sets(values), &["--namespace", OTHER]].concat();
        let text = tools::template(&more)?;
        let count = check(api.kubectl(), &text).with_context(|| format!("{values:?}"))?;
        ensure!(count >= 7, "{values:?}: {count} objects");
    }
    Ok(())
}

pub fn samples(api: &Served) -> Result<()> {
    for (name, text) in kustomizations::files()? {
        check(api.kubectl(), &text).with_context(|| name.clone())?;
        // What it would let pass, it would not notice elsewhere.
        let wrong = text.replace("runtimeClassName", "runtimeClasName");
        let arguments = ["apply", "--dry-run=server", "--filename=-"];
        api.kubectl()
            .refused(&arguments, &wrong, &["unknown field", "runtimeClasName"])
            .with_context(|| name.clone())?;
    }
    Ok(())
}

/// The installer's account, in the place of its pod: its token names a node.
pub fn rights(api: &Served) -> Result<()> {
    let kubectl = api.kubectl();
    let node = |name: &str| {
        format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: {name}, labels: {{other: stays}}, \
             annotations: {{other: stays}}}}}}"
        )
    };
    let (own, another) = (node("own"), node("another"));
    for text in [&own, &another] {
        kubectl.take(&["create", "-f", "-"], text)?;
    }
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: installer}, spec: {nodeName: own, \
               serviceAccountName: wisp-node-installer, containers: [{name: a, image: a}]}}";
    let system = kubectl.with(&["--namespace", NAMESPACE]);
    system.take(&["create", "-f", "-"], pod)?;
    let token = |more: &[&str]| -> Result<Kubectl> {
        let all = [&["create", "token", "wisp-node-installer"], more].concat();
        api.with_token(system.ok(&all)?.trim())
    };
    let bound = token(&["--bound-object-kind=Pod", "--bound-object-name=installer"])?;
    let anyone = token(&[])?;
    let patch = |metadata: &str| format!("{{\"metadata\":{metadata}}}");
    let patched = |who: &Kubectl, node: &str, text: &str, words: &[&str]| -> Result<()> {
        let arguments = ["patch", "node", node, "--type=merge", "--patch", text];
        match words {
            [] => who.ok(&arguments).map(drop),
            words => who.refused(&arguments, "", words),
        }
        .with_context(|| format!("{node}: {text}"))
    };

    // What it does.
    let report =
        patch(r#"{"labels":{"wisp.io/ready":"true"},"annotations":{"wisp.io/status":"{}"}}"#);
    patched(&bound, "own", &report, &[])?;
    let found = kubectl.get(&["node", "own"])?;
    ensure!(
        found["metadata"]["labels"]["wisp.io/ready"] == "true",
        "{found}"
    );
    let away = patch(r#"{"labels":{"wisp.io/ready":null},"annotations":{"wisp.io/status":null}}"#);
    patched(&bound, "own", &away, &[])?;

    // What it must not, though RBAC lets it.
    let own = "only the node that its pod is on";
    patched(&bound, "another", &report, &["Forbidden", own])?;
    patched(&anyone, "own", &report, &["Forbidden", own])?;
    for (text, says) in [
        (r#"{"labels":{"pool":"other"}}"#, "only labels"),
        (r#"{"labels":{"other":"changed"}}"#, "only labels"),
        (r#"{"labels":{"other":null}}"#, "only labels"),
        (r#"{"annotations":{"pool":"other"}}"#, "only annotations"),
        (r#"{"annotations":{"other":"changed"}}"#, "only annotations"),
        (r#"{"annotations":{"other":null}}"#, "only annotations"),
        (r#"{"finalizers":["wisp.io/stays"]}"#, "only labels and"),
        (
            r#"{"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"p","uid":"1"}]}"#,
            "only labels and",
        ),
    ] {
        patched(&bound, "own", &patch(text), &["Forbidden", says])?;
    }
    for text in [
        r#"{"spec":{"unschedulable":true}}"#,
        r#"{"spec":{"taints":[{"key":"a","effect":"NoExecute"}]}}"#,
    ] {
        patched(&bound, "own", text, &["Forbidden", "only labels and"])?;
    }
    // And is there for no other account.
    patched(
        kubectl,
        "another",
        &patch(r#"{"labels":{"pool":"other"}}"#),
        &[],
    )?;

    for (verb, what) in [
        ("get", "nodes"),
        ("patch", "nodes"),
        ("create", "events"),
        ("get", "daemonsets.apps/wisp-node-installer"),
        ("delete", "daemonsets.apps/wisp-node-installer"),
    ] {
        let namespace = match what {
            "events" => "default",
            _ => NAMESPACE,
        };
        let said = bound.ok(&["auth", "can-i", verb, what, "--namespace", namespace]);
        said.with_context(|| format!("{verb} {what}"))?;
    }
    for (verb, what) in [
        ("list", "nodes"),
        ("update", "nodes"),
        ("delete", "nodes"),
        ("create", "nodes"),
        ("patch", "nodes:status"),
        ("get", "nodes:proxy"),
        ("list", "pods"),
        ("create", "pods"),
        ("get", "secrets"),
        ("get", "configmaps"),
        ("delete", "daemonsets.apps/another"),
        ("patch", "daemonsets.apps/wisp-node-installer"),
        ("create", "serviceaccounts:token"),
        ("impersonate", "users"),
        ("list", "events"),
    ] {
        for namespace in [NAMESPACE, "default", "kube-system"] {
            let (what, part) = what.split_once(':').unwrap_or((what, ""));
            let part = format!("--subresource={part}");
            let arguments = ["auth", "can-i", verb, what, &part, "--namespace", namespace];
            let ended = bound.run(&arguments, "")?;
            let no = ended.code == 1 && ended.out().starts_with("no");
            ensure!(no, "{verb} {what} in {namespace}: {ended:?}");
        }
    }
    Ok(())
}
