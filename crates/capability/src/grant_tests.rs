use super::*;
use crate::Scheme;

/// A container's request with everything set to something.
struct Asked {
    args: Vec<String>,
    env: Vec<String>,
    cwd: String,
    annotations: BTreeMap<String, String>,
    mounts: Vec<Volume>,
    root_readonly: bool,
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            args: vec!["/app.wasm".into()],
            env: Vec::new(),
            cwd: "/".into(),
            annotations: BTreeMap::new(),
            mounts: Vec::new(),
            root_readonly: false,
        }
    }
}

impl Asked {
    fn annotated(key: &str, value: &str) -> Self {
        let mut asked = Self::default();
        asked.annotations.insert(key.into(), value.into());
        asked
    }

    fn with_env(env: &[&str]) -> Self {
        Self {
            env: env.iter().map(|&entry| entry.into()).collect(),
            ..Self::default()
        }
    }

    fn grant(&self) -> Result<Grant, CapabilityError> {
        grant(&Request {
            args: &self.args,
            env: &self.env,
            cwd: &self.cwd,
            annotations: &self.annotations,
            mounts: &self.mounts,
            root_readonly: self.root_readonly,
            host_network: false,
            memory_limit: None,
            namespace: "",
            policy: &Policy::default(),
        })
    }

    fn granted(&self) -> Grant {
        self.grant().expect("a valid request")
    }

    fn refused(&self) -> String {
        self.grant().expect_err("a wrong request").to_string()
    }
}

#[test]
fn by_default_a_guest_reads_its_image_and_nothing_else() {
    let grant = Asked::default().granted();
    assert_eq!(grant.root, RootAccess::Ro);
    assert_eq!(grant.preopens.len(), 1);
    assert_eq!(grant.preopens[0].guest, "/");
    assert!(grant.outbound.is_empty());
    assert!(grant.listen.is_empty());
    assert_eq!(grant.http_listen.to_string(), "0.0.0.0:8080");
}

#[test]
fn the_root_is_as_the_annotation_and_the_spec_both_allow() {
    for (value, readonly, root) in [
        ("ro", false, RootAccess::Ro),
        ("rw", false, RootAccess::Rw),
        ("rw", true, RootAccess::Ro),
        ("none", false, RootAccess::None),
    ] {
        let mut asked = Asked::annotated(annotation::FS_ROOT, value);
        asked.root_readonly = readonly;
        assert_eq!(asked.granted().root, root, "{value}, read-only {readonly}");
    }
    let error = Asked::annotated(annotation::FS_ROOT, "yes").refused();
    assert!(error.contains("io.wisp.fs.root"), "{error}");
    assert!(error.contains("ro, rw or none"), "{error}");
}

#[test]
fn without_a_root_each_volume_that_is_a_directory_is_a_preopen() {
    let mut asked = Asked::annotated(annotation::FS_ROOT, "none");
    let volume = |destination: &str, read_only, is_dir| Volume {
        destination: destination.into(),
        read_only,
        is_dir,
    };
    asked.mounts = vec![
        volume("/data", false, true),
        volume("/config", true, true),
        volume("/etc/hosts", true, false),
    ];
    let preopen = |guest: &str, writable| Preopen {
        guest: guest.into(),
        writable,
    };
    assert_eq!(
        asked.granted().preopens,
        [preopen("/data", true), preopen("/config", false)]
    );
}

#[test]
fn an_unknown_annotation_of_ours_is_an_error_and_others_are_not_our_business() {
    let error = Asked::annotated("io.wisp.net.outbund", "*").refused();
    assert!(error.contains("io.wisp.net.outbund"), "{error}");
    assert!(error.contains("io.wisp.net.outbound"), "{error}");
    Asked::annotated("io.kubernetes.cri.sandbox-id", "x").granted();
    Asked::annotated("io.wispy", "x").granted();
}

#[test]
fn network_rules_come_from_their_annotations() {
    let grant = Asked::annotated(annotation::NET_OUTBOUND, "https://*.example.com").granted();
    assert!(
        grant
            .outbound
            .allows_name(Scheme::Https, "a.example.com", 443)
    );
    assert!(grant.listen.is_empty());
    let error = Asked::annotated(annotation::NET_OUTBOUND, "a,ftp://b").refused();
    for part in ["io.wisp.net.outbound", "ftp://b", "scheme"] {
        assert!(error.contains(part), "{error}");
    }
    let error = Asked::annotated(annotation::NET_LISTEN, "tcp://localhost:80").refused();
    assert!(error.contains("io.wisp.net.listen"), "{error}");
    assert!(error.contains("localhost"), "{error}");
}

#[test]
fn the_image_cannot_grant_itself_anything() {
    let grant = Asked::with_env(&["io.wisp.net.outbound=*", "WISP_NET_OUTBOUND=*"]).granted();
    assert!(grant.outbound.is_empty());
}

#[test]
fn where_http_listens_is_said_by_the_annotation_then_by_the_environment() {
    let env = [
        "SPIN_HTTP_LISTEN_ADDR=127.0.0.1:3",
        "WASMTIME_HTTP_PROXY_SOCKET_ADDR=127.0.0.1:2",
        "WISP_HTTP_LISTEN=[::1]:1",
    ];
    for (count, expected) in [(1, "127.0.0.1:3"), (2, "127.0.0.1:2"), (3, "[::1]:1")] {
        let grant = Asked::with_env(&env[..count]).granted();
        assert_eq!(grant.http_listen.to_string(), expected);
    }
    let mut asked = Asked::with_env(&env);
    asked
        .annotations
        .insert(annotation::HTTP_LISTEN.into(), "10.0.0.1:80".into());
    assert_eq!(asked.granted().http_listen.to_string(), "10.0.0.1:80");
    for wrong in ["8080", ":8080", "localhost:80", "1.2.3.4:99999", ""] {
        let error = Asked::annotated(annotation::HTTP_LISTEN, wrong).refused();
        assert!(error.contains("io.wisp.http.listen"), "{error}");
        let error = Asked::with_env(&[&format!("WISP_HTTP_LISTEN={wrong}")]).refused();
        assert!(error.contains("WISP_HTTP_LISTEN"), "{error}");
    }
}

#[test]
fn the_last_value_of_a_variable_counts() {
    let grant = Asked::with_env(&["A=1", "B=", "A=x=y"]).granted();
    let expected = [("B", ""), ("A", "x=y")].map(|(name, value)| (name.into(), value.into()));
    assert_eq!(grant.env, expected);
}

#[test]
fn a_process_that_makes_no_sense_is_refused_by_its_field() {
    let mut asked = Asked::default();
    asked.args.clear();
    assert!(asked.refused().contains("process.args"));
    for entry in ["NAME", "=value", "A=\0"] {
        let error = Asked::with_env(&[entry]).refused();
        assert!(error.contains("process.env"), "{error}");
    }
    let mut asked = Asked {
        cwd: "data".into(),
        ..Asked::default()
    };
    assert!(asked.refused().contains("process.cwd"));
    asked.cwd.clear();
    assert_eq!(asked.granted().cwd, "/");
}

#[test]
fn preopens_can_be_narrowed_to_some_directories() {
    let mut asked = Asked::annotated(annotation::FS_PREOPENS, "/data:ro, /config,/");
    let preopen = |guest: &str, writable| Preopen {
        guest: guest.into(),
        writable,
    };
    assert_eq!(
        asked.granted().preopens,
        [
            preopen("/data", false),
            preopen("/config", true),
            preopen("/", true)
        ]
    );
    for wrong in ["data", "/a/../b", "/a//b", "/a/", "/a:rx", "/a,/a", "/a\0"] {
        let error = Asked::annotated(annotation::FS_PREOPENS, wrong).refused();
        assert!(error.contains("io.wisp.fs.preopens"), "{wrong}: {error}");
    }
    // Without a root there are the volumes only.
    asked = Asked::annotated(annotation::FS_PREOPENS, "/data/in:ro");
    asked
        .annotations
        .insert(annotation::FS_ROOT.into(), "none".into());
    assert!(asked.refused().contains("not in a volume"));
    asked.mounts = vec![Volume {
        destination: "/data".into(),
        read_only: false,
        is_dir: true,
    }];
    assert_eq!(asked.granted().preopens, [preopen("/data/in", false)]);
}

#[test]
fn the_environment_is_filtered_and_still_says_where_to_listen() {
    let mut asked = Asked::with_env(&["A=1", "B=2", "WISP_HTTP_LISTEN=127.0.0.1:9"]);
    asked
        .annotations
        .insert(annotation::ENV_ALLOW.into(), "A".into());
    let grant = asked.granted();
    assert_eq!(grant.env, [("A".to_owned(), "1".to_owned())]);
    assert_eq!(grant.http_listen.to_string(), "127.0.0.1:9");
}

#[test]
fn configuration_clocks_and_chance_are_as_annotated() {
    let grant = Asked::annotated("io.wisp.config.log.level", "debug").granted();
    assert_eq!(grant.config, [("log.level".to_owned(), "debug".to_owned())]);
    assert!(
        Asked::annotated("io.wisp.config.", "x")
            .refused()
            .contains("io.wisp.config.")
    );
    let grant = Asked::annotated(annotation::CONFIG_DIR, "/etc/app").granted();
    assert_eq!(grant.config_dir.as_deref(), Some("/etc/app"));
    Asked::annotated(annotation::CONFIG_DIR, "../etc").refused();
    assert_eq!(Asked::default().granted().clocks, Clocks::Exact);
    assert_eq!(
        Asked::annotated(annotation::CLOCKS, "coarse")
            .granted()
            .clocks,
        Clocks::Coarse
    );
    assert_eq!(
        Asked::annotated(annotation::RANDOM, "seed:7")
            .granted()
            .seed,
        Some(7)
    );
    assert_eq!(
        Asked::annotated(annotation::RANDOM, "host").granted().seed,
        None
    );
    for (key, value) in [
        (annotation::CLOCKS, "none"),
        (annotation::RANDOM, "seed:"),
        (annotation::RANDOM, "seed:+1"),
        (annotation::RANDOM, "7"),
        (annotation::MEMORY_MAX, "much"),
        (annotation::INTERFACES_DENY, "sockets"),
        (annotation::ENV_DENY, "A=B"),
    ] {
        assert!(
            Asked::annotated(key, value).refused().contains(key),
            "{key}"
        );
    }
}
