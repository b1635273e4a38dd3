//! What somebody could do who has the token of the installer's pod.

use super::Case;
use super::world::{SYSTEM, World, create};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use wisp_tests::kubernetes::{Kubectl, NODE};

pub const CASES: &[Case] = &[(
    "the token of the installer's pod is good for its own node alone",
    own_node,
)];

fn own_node(world: &World) -> Result<()> {
    let kubectl = world.installed()?;
    let system = kubectl.with(&["--namespace", SYSTEM]);
    let pods = system.get(&["pods"])?;
    let pod = pods["items"][0]["metadata"]["name"]
        .as_str()
        .context("no pod")?;
    create(
        kubectl,
        &json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "another" } }),
    )?;
    let token = |more: &[&str]| -> Result<Kubectl> {
        let all = [&["create", "token", "wisp-node-installer"], more].concat();
        let token = system.ok(&all)?;
        world.cluster()?.control().with_token(token.trim())
    };
    let its_own = token(&["--bound-object-kind=Pod", "--bound-object-name", pod])?;
    let of_none = token(&[])?;
    let label = |node: &'static str, value: &'static str| ["label", "node", node, value];

    its_own.ok(&label(NODE, "wisp.io/tried=true"))?;
    its_own.ok(&label(NODE, "wisp.io/tried-"))?;
    let only = ["Forbidden", "only the node that its pod is on"];
    its_own.refused(&label("another", "wisp.io/ready=true"), "", &only)?;
    of_none.refused(&label(NODE, "wisp.io/tried=true"), "", &only)?;
    let labels = ["Forbidden", "only labels that begin with wisp.io/"];
    its_own.refused(&label(NODE, "pool=other"), "", &labels)?;
    its_own.refused(&label(NODE, "kubernetes.io/os-"), "", &labels)?;
    for patch in [
        r#"{"spec":{"unschedulable":true}}"#,
        r#"{"spec":{"taints":[{"key":"a","effect":"NoExecute"}]}}"#,
    ] {
        let arguments = ["patch", "node", NODE, "--type=merge", "--patch", patch];
        its_own.refused(
            &arguments,
            "",
            &["Forbidden", "only labels and annotations"],
        )?;
    }
    its_own.refused(&["get", "nodes"], "", &["cannot list"])?;
    its_own.refused(&["get", "secrets"], "", &["cannot list"])?;
    its_own.refused(&["get", "pods"], "", &["cannot list"])?;
    let node = kubectl.get(&["node", NODE])?;
    ensure!(node["spec"]["taints"].is_null() && node["spec"]["unschedulable"].is_null());
    kubectl.ok(&["delete", "node", "another"]).map(drop)
}
