use super::*;

const PATH: &str = "/opt/wisp/bin/containerd-shim-wisp-v1";
const SHIM: Runtime<'_> = Runtime {
    shim: PATH,
    by_type: false,
};
const ELSEWHERE: Runtime<'_> = Runtime {
    shim: "/elsewhere",
    by_type: false,
};

/// Texts as owners have them: fresh, edited, nearly empty, of all schemas.
const TEXTS: [&str; 9] = [
    "",
    "version = 2\n",
    "# mine\nversion = 3 # three\n",
    "disabled_plugins = []\n[plugins.cri.containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n",
    r#"version = 2
root = "/data" # moved

[plugins]
  # Kubernetes
  [plugins."io.containerd.grpc.v1.cri"]
    sandbox_image = "registry/pause:3.9"
    [plugins."io.containerd.grpc.v1.cri".containerd]
      default_runtime_name = "runc"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes]
        [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
          runtime_type = "io.containerd.runc.v2"
          [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
            SystemdCgroup = true   # kubelet's

  [plugins."io.containerd.internal.v1.opt"]
    path = "/opt/containerd"
"#,
    "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\nruntime_type = 'io.containerd.runc.v2'\n[plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dirs = ['/opt/cni/bin']",
    "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n\n\n# the end",
    "version = 4\n[plugins]\n[debug]\nlevel = \"info\"\n",
    "version = 2\r\n[plugins.\"io.containerd.grpc.v1.cri\"]\r\nenable_selinux = false\r\n",
];

fn runtime(text: &str) -> toml::Table {
    let table: toml::Table = text.parse().expect("TOML");
    let mut at = &table;
    for name in path(schema(text).expect("schema")).expect("known") {
        at = at[name].as_table().expect("table");
    }
    at[HANDLER].as_table().expect("the runtime").clone()
}

#[test]
fn what_was_added_is_there_and_what_is_taken_away_leaves_no_trace() {
    for text in TEXTS {
        let changed = with(text, SHIM).expect(text);
        let runtime = runtime(&changed);
        assert_eq!(
            runtime["runtime_type"].as_str(),
            Some(RUNTIME_TYPE),
            "{text}"
        );
        assert_eq!(runtime["runtime_path"].as_str(), Some(PATH), "{text}");
        assert_eq!(runtime["pod_annotations"][0].as_str(), Some(ANNOTATIONS));
        let gone = without(&changed).expect(text);
        // A last line without an end has one now.
        let end = if text.is_empty() || text.ends_with('\n') || text.ends_with("end") {
            ""
        } else {
            "\n"
        };
        assert_eq!(gone, format!("{text}{end}"), "{changed}");
    }
}

#[test]
fn every_line_of_the_owner_stays() {
    for text in TEXTS {
        let changed = with(text, SHIM).expect(text);
        let mut lines = changed.lines();
        for line in text.lines() {
            assert!(
                lines.any(|found| found == line),
                "{line:?} is gone:\n{changed}"
            );
        }
    }
}

#[test]
fn adding_twice_is_adding_once() {
    for text in TEXTS {
        let once = with(text, SHIM).expect(text);
        assert_eq!(with(&once, SHIM).expect("twice"), once);
        let moved = with(&once, ELSEWHERE).expect("moved");
        assert_eq!(runtime(&moved)["runtime_path"].as_str(), Some("/elsewhere"));
        assert_eq!(with(&moved, SHIM).expect("back"), once);
    }
}

#[test]
fn what_the_owner_gave_the_runtime_stays() {
    let text = with(TEXTS[4], SHIM).expect("added").replace(
        "pod_annotations = [\"io.wisp.*\"]\n",
        "pod_annotations = [\"io.wisp.*\"]\nsnapshotter = \"native\" # mine\n",
    );
    let again = with(&text, ELSEWHERE).expect("again");
    assert!(again.contains("snapshotter = \"native\" # mine"), "{again}");
}

#[test]
fn runtimes_of_other_shapes_take_one_more() {
    let text = "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd]\nruntimes = { runc = { runtime_type = 'io.containerd.runc.v2' } }\n";
    let changed = with(text, SHIM).expect("inline");
    assert_eq!(runtime(&changed)["runtime_path"].as_str(), Some(PATH));
    let gone: toml::Table = without(&changed).expect("without").parse().expect("TOML");
    assert_eq!(gone, text.parse::<toml::Table>().expect("TOML"));
}

#[test]
fn what_cannot_be_changed_is_said() {
    assert!(matches!(with("version = ", SHIM), Err(Fault::Malformed(_))));
    assert_eq!(with("version = 7\n", SHIM), Err(Fault::Schema(7)));
    let text = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\ncontainerd = 7\n";
    let Err(Fault::NotATable(key, found)) = with(text, SHIM) else {
        panic!("a number is no table");
    };
    assert!(key.ends_with(".containerd"), "{key}");
    assert_eq!(found, "integer");
    let text =
        "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes]\nwisp = 'x'\n";
    assert!(matches!(with(text, SHIM), Err(Fault::NotATable(..))));
}

#[test]
fn an_old_containerd_gets_the_path_as_the_type() {
    let old = Runtime {
        by_type: true,
        ..SHIM
    };
    let text = with("version = 2\n", old).expect("with");
    assert_eq!(runtime(&text)["runtime_type"].as_str(), Some(PATH));
    let upgraded = with(&text, SHIM).expect("with");
    assert_eq!(
        runtime(&upgraded)["runtime_type"].as_str(),
        Some(RUNTIME_TYPE)
    );
}
