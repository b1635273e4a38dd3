//! What a daemon that died leaves beside the container it was made for.
//!
//! containerd before 2.0 calls `start` and `delete` for each container of a pod.
//! Since then the pod's further containers are given to the first one's daemon
//! without asking. When that daemon dies, containerd calls `delete` for the first
//! alone, and removes the bundles of the others while their processes run on. So
//! the daemon keeps, in the first one's bundle, what it takes to clean up after
//! the others: their specs.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use containerd_shim::protos::events::task::TaskExit;
use containerd_shim::protos::protobuf::MessageField;
use containerd_shim::protos::protobuf::well_known_types::timestamp::Timestamp;
use log::warn;
use wisp_container::Bundle;

use crate::serve::events::{Event, Publisher};

/// Where the specs are, in the first container's bundle.
const FOLDER: &str = "beside";
/// What a spec's name has after the container's id.
const SUFFIX: &str = ".json";
/// How long containerd may take to hear of the ends.
const PATIENCE: Duration = Duration::from_secs(3);

fn kept(first: &Path, id: &str) -> PathBuf {
    first.join(FOLDER).join(format!("{id}{SUFFIX}"))
}

/// Keeps the spec of container `id` beside that of the pod's `first`, unless
/// containerd calls `delete` for it anyway. Called by the daemon, before there is
/// anything to clean up.
pub fn keep(first: &str, bundle: &Bundle, id: &str) {
    if first == id || bundle.path().join("address").exists() {
        return;
    }
    let kept = kept(&bundle.path().with_file_name(first), id);
    let link = || fs::hard_link(bundle.config(), &kept);
    let linked = match link() {
        Err(error) if error.kind() == ErrorKind::NotFound => kept
            .parent()
            .map_or(Ok(()), fs::create_dir)
            .and_then(|()| link()),
        linked => linked,
    };
    if let Err(error) = linked {
        warn!(
            "container {id}: {}: {error}; should this process be killed, nobody ends the container",
            kept.display()
        );
    }
}

/// Container `id` has been removed: nothing is left to clean up.
pub fn forget(first: &str, bundle: &Bundle, id: &str) {
    let _ = fs::remove_file(kept(&bundle.path().with_file_name(first), id));
}

/// Kills and removes what the pod's other containers left, `first` being the
/// bundle of the one that is deleted, and tells containerd of their ends:
/// `status`, `at`.
///
/// # Errors
/// The first that could not be removed; the others are.
pub fn remove(first: &Path, namespace: &str, status: u32, at: &Timestamp) -> anyhow::Result<()> {
    let mut result = Ok(());
    let mut ends = Vec::new();
    for (id, spec) in find(first) {
        let removed = Bundle::new(first.with_file_name(&id))
            .abandon_orphan(&id, &spec, true)
            .with_context(|| format!("clean up container {id}"));
        match removed {
            Ok(()) => drop(fs::remove_file(spec)),
            Err(error) => {
                warn!("{error:#}");
                result = result.and(Err(error));
            }
        }
        ends.push(TaskExit {
            container_id: id.clone(),
            id,
            exit_status: status,
            exited_at: MessageField::some(at.clone()),
            ..TaskExit::default()
        });
    }
    tell(ends, namespace).and(result)
}

/// Ids and specs of the pod's other containers.
fn find(first: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(first.join(FOLDER)).into_iter().flatten();
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter_map(|path| {
            let id = path.file_name()?.to_str()?.strip_suffix(SUFFIX)?;
            Some((id.to_owned(), path))
        })
        .collect()
}

fn tell(ends: Vec<TaskExit>, namespace: &str) -> anyhow::Result<()> {
    let Ok(containerd) = std::env::var("TTRPC_ADDRESS") else {
        return Ok(());
    };
    if ends.is_empty() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        let publisher = Publisher::start(containerd, namespace.to_owned());
        for end in ends {
            publisher.publish(&Event::Exit(end));
        }
        publisher.flush(PATIENCE).await;
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_are_kept_of_those_that_containerd_forgets() {
        let dir = tempfile::tempdir().expect("temp dir");
        let bundle = |name: &str, asked: bool| {
            let path = dir.path().join(name);
            fs::create_dir(&path).expect("bundle");
            fs::write(path.join("config.json"), name).expect("spec");
            if asked {
                fs::write(path.join("address"), "unix:///run/s").expect("address");
            }
            Bundle::new(path)
        };
        let first = bundle("first", true);
        keep("first", &first, "first");
        let asked = bundle("asked", true);
        keep("first", &asked, "asked");
        assert_eq!(find(first.path()), []);
        for name in ["second", "third"] {
            keep("first", &bundle(name, false), name);
        }
        forget("first", &Bundle::new(dir.path().join("third")), "third");
        // containerd removes it first.
        fs::remove_dir_all(dir.path().join("second")).expect("remove");
        let found = find(first.path());
        assert_eq!(found, [("second".to_owned(), kept(first.path(), "second"))]);
        assert_eq!(fs::read_to_string(&found[0].1).expect("spec"), "second");
    }
}
