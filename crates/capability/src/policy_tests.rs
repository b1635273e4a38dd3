use super::*;
use crate::{Grant, Request, Scheme};

fn rules(text: &str) -> Rules {
    Rules::parse(text).expect("rules")
}

fn grant_in(
    policy: &Policy,
    namespace: &str,
    annotations: &[(&str, &str)],
) -> Result<Grant, String> {
    let annotations = annotations
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    crate::grant(&Request {
        args: &["/app.wasm".to_owned()],
        env: &[],
        cwd: "/",
        annotations: &annotations,
        mounts: &[],
        root_readonly: false,
        host_network: false,
        memory_limit: None,
        namespace,
        policy,
    })
    .map_err(|error| error.to_string())
}

fn grant(policy: &Policy, annotations: &[(&str, &str)]) -> Result<Grant, String> {
    grant_in(policy, "default", annotations)
}

fn with_ceiling(ceiling: Ceiling) -> Policy {
    let mut policy = Policy::default();
    policy.node.ceiling = ceiling;
    policy
}

#[test]
fn profiles_are_picked_by_their_names() {
    let policy = Policy::default();
    let pick = |name| grant(&policy, &[(annotation::PROFILE, name)]);
    let strict = pick("strict").expect("strict");
    assert_eq!(strict.root, RootAccess::None);
    assert!(strict.outbound.is_empty());
    assert_eq!(pick("default"), grant(&policy, &[]));
    let open = pick("open").expect("open");
    assert_eq!(open.root, RootAccess::Rw);
    assert!(open.outbound.uses(Scheme::Tcp) && open.listen.uses(Scheme::Udp));
    let error = pick("opne").expect_err("no such");
    for part in ["io.wisp.profile", "opne", "strict, default, open"] {
        assert!(error.contains(part), "{error}");
    }
    // A pod's own annotations come before the profile's.
    let narrowed = grant(
        &policy,
        &[(annotation::PROFILE, "open"), (annotation::FS_ROOT, "ro")],
    );
    assert_eq!(narrowed.expect("narrowed").root, RootAccess::Ro);
}

#[test]
fn strict_stays_strict_whatever_the_pod_adds() {
    for (key, value) in [
        (annotation::NET_OUTBOUND, "*"),
        (annotation::NET_LISTEN, "*:80"),
        (annotation::FS_ROOT, "ro"),
    ] {
        let error = grant(
            &Policy::default(),
            &[(annotation::PROFILE, "strict"), (key, value)],
        )
        .expect_err(key);
        assert!(
            error.contains(key) && error.contains("of the profile"),
            "{error}"
        );
    }
}

#[test]
fn the_node_says_which_profiles_and_annotations_pods_may_use() {
    let mut policy = Policy::default();
    policy.node.profile = Some("strict".into());
    policy.node.profiles = Some(vec!["strict".into(), "default".into()]);
    policy.node.annotations = Some(vec![annotation::PROFILE.into(), "io.wisp.env.*".into()]);
    assert_eq!(grant(&policy, &[]).expect("default").root, RootAccess::None);
    let picked = grant(&policy, &[(annotation::PROFILE, "default")]);
    assert_eq!(picked.expect("picked").root, RootAccess::Ro);
    let error = grant(&policy, &[(annotation::PROFILE, "open")]).expect_err("not theirs");
    assert!(error.contains("strict, default"), "{error}");
    grant(&policy, &[(annotation::ENV_DENY, "A")]).expect("allowed");
    let error = grant(&policy, &[(annotation::FS_ROOT, "none")]).expect_err("not theirs");
    assert!(error.contains("io.wisp.fs.root"), "{error}");
    assert!(error.contains("io.wisp.env.*"), "{error}");
    // Annotations of others are nobody's business.
    grant(&policy, &[("example.com/x", "y")]).expect("ignored");
}

#[test]
fn a_namespace_has_terms_of_its_own_beside_the_nodes() {
    let mut policy = with_ceiling(Ceiling {
        net_outbound: Some(rules("https://*.example.com")),
        ..Ceiling::default()
    });
    let own = Terms {
        profile: Some("strict".into()),
        ..Terms::default()
    };
    policy.namespaces.insert("locked".into(), own);
    let ask = [(annotation::NET_OUTBOUND, "https://a.example.com")];
    grant_in(&policy, "other", &ask).expect("within the node's");
    assert!(grant_in(&policy, "locked", &ask).is_err());
    // The namespace cannot give more than the node does.
    let generous = Terms {
        ceiling: Ceiling {
            net_outbound: Some(rules("*")),
            ..Ceiling::default()
        },
        ..Terms::default()
    };
    policy.namespaces.insert("rich".into(), generous);
    let ask = [(annotation::NET_OUTBOUND, "https://elsewhere.com")];
    let error = grant_in(&policy, "rich", &ask).expect_err("beyond");
    assert!(error.contains("policy.ceiling.net_outbound"), "{error}");
    assert!(error.contains("https://elsewhere.com"), "{error}");
}

#[test]
fn a_rule_is_within_a_ceiling_or_refused_as_a_whole() {
    for (most, rule, within) in [
        ("*", "a.com", true),
        ("*", "*", true),
        ("*", "10.0.0.0/8", true),
        ("*", "169.254.169.254", false),
        ("*", "127.0.0.1", false),
        ("*", "localhost", false),
        ("169.254.0.0/16", "169.254.169.254", true),
        ("localhost", "localhost", true),
        ("*.com", "a.com", true),
        ("*.com", "*.a.com", true),
        ("*.a.com", "*.com", false),
        ("*.a.com", "a.com", false),
        ("a.com", "*.a.com", false),
        ("10.0.0.0/8", "10.1.0.0/16", true),
        ("10.1.0.0/16", "10.0.0.0/8", false),
        ("10.0.0.0/8", "a.com", false),
        ("10.0.0.0/8", "*", false),
        ("tcp://*", "tcp://a.com", true),
        ("tcp://*", "udp://a.com", false),
        ("tcp://*", "a.com", false),
        ("*:80-90", "a.com:85", true),
        ("*:80-90", "a.com:85-91", false),
        ("*:80-90", "a.com", false),
        ("*:80, *:81", "a.com:80-81", false),
        ("", "a.com", false),
    ] {
        let beyond = rules(rule).first_beyond(&rules(most));
        assert_eq!(beyond.is_none(), within, "{rule} within {most}");
    }
    assert_eq!(
        rules("a.com, b.com").first_beyond(&rules("a.com")),
        Some("b.com".into())
    );
}

#[test]
fn a_rule_is_shown_as_it_is_written() {
    for text in [
        "*",
        "tcp://a.com:80",
        "*.a.com:1-2",
        "10.0.0.0/8",
        "10.0.0.1:5",
        "https://[::1]:443",
        "[2001:db8::/32]:80",
    ] {
        let shown = rules(text)
            .first_beyond(&Rules::default())
            .expect("beyond nothing");
        assert_eq!(shown, text);
        assert_eq!(rules(&shown), rules(text));
    }
}

#[test]
fn what_nobody_asked_for_is_lowered_and_what_somebody_did_is_refused() {
    let policy = with_ceiling(Ceiling {
        fs_root: Some(RootAccess::None),
        memory_max: Some(8 << 20),
        memory_instance_max: Some(1 << 20),
        interfaces_deny: vec!["wasi:sockets".into()],
        ..Ceiling::default()
    });
    let granted = grant(&policy, &[]).expect("lowered");
    assert_eq!(granted.root, RootAccess::None);
    assert_eq!(granted.limits.memory.map(|cap| cap.bytes), Some(8 << 20));
    let text = granted.limits.memory.map(|cap| cap.to_string());
    assert!(text.is_some_and(|text| text.contains("policy.ceiling.memory_max")));
    assert_eq!(granted.limits.instance.map(|cap| cap.bytes), Some(1 << 20));
    assert!(
        granted
            .interfaces
            .refusal("wasi:sockets/tcp@0.2.0")
            .is_some()
    );
    let error = grant(&policy, &[(annotation::FS_ROOT, "ro")]).expect_err("asked");
    assert!(error.contains("policy.ceiling.fs_root"), "{error}");
    let lower = grant(&policy, &[(annotation::MEMORY_MAX, "4Mi")]).expect("lower");
    assert_eq!(lower.limits.memory.map(|cap| cap.bytes), Some(4 << 20));
}

#[test]
fn a_profile_of_the_node_takes_the_place_of_one_there_is() {
    let mut policy = Policy::default();
    let own = Profile {
        annotations: BTreeMap::from([(annotation::NET_OUTBOUND.to_owned(), "a.com".to_owned())]),
        ceiling: Ceiling::default(),
    };
    policy.profiles.insert("default".into(), own);
    let granted = grant(&policy, &[]).expect("granted");
    assert!(granted.outbound.allows_name(Scheme::Http, "a.com", 80));
}

#[test]
fn a_preset_is_checked_in_advance() {
    assert_eq!(check(annotation::FS_ROOT, "ro"), Ok(()));
    for (key, value) in [
        (annotation::FS_ROOT, "yes"),
        (annotation::PROFILE, "strict"),
        (annotation::NET_OUTBOUND, "ftp://x"),
        ("io.wisp.nonsense", "x"),
    ] {
        assert!(check(key, value).is_err(), "{key}");
    }
}
