//! What a pod's annotations would give a program: missing, granted, granted
//! and not used.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use wisp_capability::{Grant, Policy, Request, RootAccess, Scheme, annotation};

use super::needs::Need;
use super::program::Program;

/// The largest file that is read, in bytes: a pod's annotations are far less.
const LARGEST: u64 = 4 << 20;

/// The annotations of one pod, or of a template for pods.
#[derive(Debug, PartialEq, Eq)]
pub struct Pod {
    /// `kind/name`, or nothing for annotations alone.
    pub title: String,
    pub namespace: String,
    pub annotations: BTreeMap<String, String>,
}

/// What came out for one pod.
#[derive(Debug, Default, Serialize)]
pub struct Verdict {
    pub pod: String,
    /// The program, if it is an image's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    pub missing: Vec<String>,
    pub granted: Vec<String>,
    pub unused: Vec<String>,
}

/// The parts of a Kubernetes object that say which annotations its pods have.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Object {
    kind: Option<String>,
    metadata: Metadata,
    spec: Option<Box<Spec>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    template: Option<Box<Object>>,
    job_template: Option<Box<Object>>,
}

/// Reads the pods of a file: Kubernetes objects, or a map of annotations.
///
/// # Errors
/// A file that is neither.
pub fn pods(path: &Path) -> Result<Vec<Pod>> {
    let name = path.display();
    let size = std::fs::metadata(path)
        .with_context(|| name.to_string())?
        .len();
    if size > LARGEST {
        bail!("{name}: larger than {} MiB", LARGEST >> 20);
    }
    let text = std::fs::read_to_string(path).with_context(|| name.to_string())?;
    parse(&text).with_context(|| name.to_string())
}

/// The same of a text.
///
/// # Errors
/// As there.
pub fn parse(text: &str) -> Result<Vec<Pod>> {
    // JSON is YAML, too. One document that is a map of texts is annotations.
    if let Ok(annotations) = serde_saphyr::from_str::<BTreeMap<String, String>>(text)
        && !annotations.contains_key("kind")
    {
        return Ok(vec![Pod {
            title: String::new(),
            namespace: String::new(),
            annotations,
        }]);
    }
    let objects: Vec<Object> = serde_saphyr::from_multiple(text)
        .map_err(|error| anyhow::anyhow!("neither Kubernetes objects nor annotations: {error}"))?;
    let pods: Vec<Pod> = objects.into_iter().filter_map(pod).collect();
    if pods.is_empty() {
        bail!("no pod, and nothing that makes pods, is in it");
    }
    Ok(pods)
}

fn pod(object: Object) -> Option<Pod> {
    let kind = object.kind.clone()?;
    let Metadata {
        name, namespace, ..
    } = &object.metadata;
    let title = format!("{kind}/{}", name.clone().unwrap_or_default());
    let namespace = namespace.clone().unwrap_or_else(|| "default".into());
    let mut innermost = object;
    // A CronJob's template has a template.
    for _ in 0..2 {
        let Some(spec) = innermost.spec.take() else {
            break;
        };
        match spec.template.or(spec.job_template) {
            Some(template) => innermost = *template,
            None => {
                innermost.spec = Some(Box::default());
                break;
            }
        }
    }
    let makes_pods = kind == "Pod" || innermost.kind.is_none();
    makes_pods.then_some(Pod {
        title,
        namespace,
        annotations: innermost.metadata.annotations,
    })
}

/// Compares what `pod` is granted under `policy` with what `program` imports.
pub fn compare(program: &Program, pod: &Pod, policy: &Policy) -> Verdict {
    let mut verdict = Verdict {
        pod: pod.title.clone(),
        ..Verdict::default()
    };
    match grant(pod, policy) {
        Ok(grant) => {
            weigh(program, pod, &grant, &mut verdict);
        }
        Err(reason) => verdict.missing.push(format!("everything: {reason}")),
    }
    verdict
}

fn grant(pod: &Pod, policy: &Policy) -> Result<Grant, String> {
    wisp_capability::grant(&Request {
        args: &["app.wasm".to_owned()],
        env: &[],
        cwd: "/",
        annotations: &pod.annotations,
        mounts: &[],
        root_readonly: false,
        host_network: false,
        memory_limit: None,
        namespace: &pod.namespace,
        policy,
    })
    .map_err(|error| error.to_string())
}

fn weigh(program: &Program, pod: &Pod, grant: &Grant, verdict: &mut Verdict) {
    let needs = |need| program.needs.contains(&need);
    let said = |key: &str| pod.annotations.get(key).map(String::as_str);
    let Verdict {
        missing,
        granted,
        unused,
        ..
    } = verdict;

    let names =
        program.imports.iter().map(
            |import| match import.split_once("wasi_snapshot_preview1.") {
                Some(_) => "wasi_snapshot_preview1",
                None => import.as_str(),
            },
        );
    let mut refused: Vec<String> = names
        .filter_map(|name| Some(format!("{name}: {}", grant.interfaces.refusal(name)?)))
        .collect();
    refused.dedup();
    missing.extend(refused);

    let root = match grant.root {
        RootAccess::Ro => "to read",
        RootAccess::Rw => "to read and write",
        RootAccess::None => "none",
    };
    match (needs(Need::Files), grant.root) {
        (true, RootAccess::None) => missing.push(format!(
            "the image's files: {} has to be ro or rw; volumes are as the pod mounts them",
            annotation::FS_ROOT
        )),
        (true, _) => granted.push(format!("the image's files, {root}; volumes")),
        (false, RootAccess::None) => {}
        (false, _) => unused.push(format!(
            "the image's files, {root}: {}: \"none\" takes them away",
            annotation::FS_ROOT
        )),
    }

    let out = |scheme| grant.outbound.uses(scheme);
    let listens = grant.listen.uses(Scheme::Tcp) || grant.listen.uses(Scheme::Udp);
    let rules = said(annotation::NET_OUTBOUND).unwrap_or("by the profile");
    if needs(Need::Sockets) {
        if out(Scheme::Tcp) || out(Scheme::Udp) {
            granted.push(format!("sockets to: {rules}"));
        }
        if listens {
            let rules = said(annotation::NET_LISTEN).unwrap_or("by the profile");
            granted.push(format!("sockets that listen on: {rules}"));
        }
        if !out(Scheme::Tcp) && !out(Scheme::Udp) && !listens {
            missing.push(format!(
                "sockets: {}: \"tcp://HOST:PORT\" or {}: \"tcp://*:PORT\"",
                annotation::NET_OUTBOUND,
                annotation::NET_LISTEN
            ));
        }
    } else if listens {
        unused.push(format!("{}: it has no sockets", annotation::NET_LISTEN));
    }
    if needs(Need::OutboundHttp) {
        if out(Scheme::Http) || out(Scheme::Https) {
            granted.push(format!("outbound HTTP to: {rules}"));
        } else {
            missing.push(format!(
                "outbound HTTP: {}: \"https://HOST\"",
                annotation::NET_OUTBOUND
            ));
        }
    }
    if !needs(Need::Sockets) && !needs(Need::OutboundHttp) && !grant.outbound.is_empty() {
        unused.push(format!(
            "{}: it makes no connections",
            annotation::NET_OUTBOUND
        ));
    }

    let configured = !grant.config.is_empty() || grant.config_dir.is_some();
    match (needs(Need::Config), configured) {
        (true, true) => granted.push("values of configuration".into()),
        (true, false) => missing.push(format!(
            "values of configuration: {}NAME or {}",
            annotation::CONFIG,
            annotation::CONFIG_DIR
        )),
        (false, true) => unused.push("values of configuration: it asks for none".into()),
        (false, false) => {}
    }
    let serves = program
        .world
        .as_deref()
        .is_some_and(|w| w.starts_with("HTTP"));
    if serves {
        granted.push(format!("an HTTP server on {}", grant.http_listen));
    } else if said(annotation::HTTP_LISTEN).is_some() {
        unused.push(format!("{}: it is no server", annotation::HTTP_LISTEN));
    }
    for need in [Need::Environment, Need::Streams, Need::Clocks, Need::Random] {
        if needs(need) {
            granted.push(need.words().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(imports: &[&str], world: &str) -> Program {
        let imports: Vec<String> = imports.iter().map(|&name| name.to_owned()).collect();
        Program {
            kind: "component",
            size: 1,
            world: Some(world.into()),
            problems: Vec::new(),
            wasi: Vec::new(),
            needs: Need::of(&imports),
            imports,
            exports: Vec::new(),
        }
    }

    fn verdict(imports: &[&str], annotations: &[(&str, &str)]) -> Verdict {
        let pod = Pod {
            title: String::new(),
            namespace: String::new(),
            annotations: annotations
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        };
        compare(&program(imports, "command"), &pod, &Policy::default())
    }

    fn has(lines: &[String], part: &str) -> bool {
        lines.iter().any(|line| line.contains(part))
    }

    #[test]
    fn what_is_imported_and_not_granted_is_missing() {
        let found = verdict(&["wasi:sockets/tcp@0.2.6", "wasi:http/client@0.3.0"], &[]);
        assert!(has(&found.missing, "io.wisp.net.listen"), "{found:?}");
        assert!(has(&found.missing, "outbound HTTP"), "{found:?}");
        assert!(has(&found.unused, "io.wisp.fs.root"), "{found:?}");
        let found = verdict(
            &["wasi:sockets/tcp@0.2.6"],
            &[
                ("io.wisp.net.outbound", "tcp://a:1"),
                ("io.wisp.fs.root", "none"),
            ],
        );
        assert!(
            found.missing.is_empty() && found.unused.is_empty(),
            "{found:?}"
        );
        assert!(has(&found.granted, "tcp://a:1"), "{found:?}");
    }

    #[test]
    fn what_is_granted_and_not_imported_is_unused() {
        let found = verdict(
            &["wasi:filesystem/types@0.2.6"],
            &[
                ("io.wisp.net.outbound", "*"),
                ("io.wisp.net.listen", "*"),
                ("io.wisp.config.a", "b"),
                ("io.wisp.http.listen", "0.0.0.0:1"),
            ],
        );
        for key in ["net.outbound", "net.listen", "configuration", "http.listen"] {
            assert!(has(&found.unused, key), "{key}: {found:?}");
        }
        assert!(has(&found.granted, "image's files, to read"), "{found:?}");
    }

    #[test]
    fn what_would_fail_create_is_missing() {
        let found = verdict(&[], &[("io.wisp.net.outbund", "*")]);
        assert!(has(&found.missing, "io.wisp.net.outbund"), "{found:?}");
        let deny = [("io.wisp.interfaces.deny", "wasi:sockets")];
        let found = verdict(&["wasi:sockets/tcp@0.2.6"], &deny);
        assert!(has(&found.missing, "io.wisp.interfaces.deny"), "{found:?}");
    }

    #[test]
    fn annotations_are_found_where_kubernetes_has_them() {
        let pods = parse(
            r#"
apiVersion: v1
kind: Pod
metadata:
  name: one
  annotations: { io.wisp.fs.root: "none" }
spec:
  containers: [{ name: a, image: b }]
---
kind: Deployment
metadata: { name: two, namespace: team, annotations: { not: "these" } }
spec:
  replicas: 3
  template:
    metadata:
      annotations:
        io.wisp.fs.root: rw
    spec: { containers: [] }
---
kind: CronJob
metadata: { name: three }
spec:
  schedule: "* * * * *"
  jobTemplate:
    spec:
      template:
        metadata: { annotations: { io.wisp.fs.root: ro } }
---
kind: Service
metadata: { name: four }
spec: { ports: [] }
"#,
        )
        .expect("pods");
        let found: Vec<_> = pods
            .iter()
            .map(|pod| {
                let root = pod.annotations.get("io.wisp.fs.root").map(String::as_str);
                (pod.title.as_str(), pod.namespace.as_str(), root)
            })
            .collect();
        assert_eq!(
            found,
            [
                ("Pod/one", "default", Some("none")),
                ("Deployment/two", "team", Some("rw")),
                ("CronJob/three", "default", Some("ro")),
            ]
        );
    }

    #[test]
    fn a_map_of_annotations_is_one_pods() {
        for text in [r#"{"io.wisp.fs.root": "none"}"#, "io.wisp.fs.root: none\n"] {
            let pods = parse(text).expect("annotations");
            assert_eq!(pods.len(), 1);
            assert_eq!(pods[0].annotations["io.wisp.fs.root"], "none");
        }
    }

    #[test]
    fn what_is_neither_is_refused_and_never_a_panic() {
        for text in [
            "- a\n- b",
            "kind: Service\nmetadata: {}",
            ": : :",
            "{",
            "a: [",
            "\0",
            "42",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        // Aliases of aliases, which would be gigabytes.
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for level in 1..12 {
            let before = vec![format!("*a{}", level - 1); 10].join(",");
            bomb.push_str(&format!("a{level}: &a{level} [{before}]\n"));
        }
        assert!(parse(&bomb).is_err());
    }
}
