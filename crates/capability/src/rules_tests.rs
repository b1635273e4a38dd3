use super::*;

fn rules(text: &str) -> Rules {
    Rules::parse(text).unwrap_or_else(|problem| panic!("{text}: {problem}"))
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("address")
}

const POD: bool = false;
const HOST: bool = true;

#[test]
fn nothing_is_allowed_without_a_rule() {
    for text in ["", "  "] {
        let rules = rules(text);
        assert!(rules.is_empty());
        assert!(!rules.allows_addr(Scheme::Tcp, addr("10.0.0.1:80"), POD));
        assert!(!rules.allows_name(Scheme::Http, "example.com", 80));
        assert!(!rules.wants_lookup());
    }
}

#[test]
fn scheme_host_and_port_must_all_match() {
    let rules = rules("tcp://10.0.0.1:5432, http://example.com:80-89,[2001:db8::1]:443");
    for (scheme, address, allowed) in [
        (Scheme::Tcp, "10.0.0.1:5432", true),
        (Scheme::Tcp, "10.0.0.1:5433", false),
        (Scheme::Tcp, "10.0.0.2:5432", false),
        (Scheme::Udp, "10.0.0.1:5432", false),
        (Scheme::Tcp, "[::ffff:10.0.0.1]:5432", true),
        (Scheme::Udp, "[2001:db8::1]:443", true),
        (Scheme::Https, "[2001:db8::1]:443", true),
        (Scheme::Https, "[2001:db8::1]:444", false),
    ] {
        let found = rules.allows_addr(scheme, addr(address), POD);
        assert_eq!(found, allowed, "{scheme} {address}");
    }
    for (scheme, host, port, allowed) in [
        (Scheme::Http, "example.com", 80, true),
        (Scheme::Http, "EXAMPLE.com.", 89, true),
        (Scheme::Http, "example.com", 90, false),
        (Scheme::Https, "example.com", 80, false),
        (Scheme::Http, "www.example.com", 80, false),
        (Scheme::Http, "badexample.com", 80, false),
        (Scheme::Http, "[2001:db8::1]", 443, true),
    ] {
        let found = rules.allows_name(scheme, host, port);
        assert_eq!(found, allowed, "{scheme} {host}:{port}");
    }
}

#[test]
fn a_suffix_covers_the_names_below_it_only() {
    let rules = rules("*.example.com");
    for (host, allowed) in [
        ("www.example.com", true),
        ("a.b.Example.Com", true),
        ("example.com", false),
        ("wwwexample.com", false),
        ("www.example.com.evil.net", false),
    ] {
        assert_eq!(
            rules.allows_name(Scheme::Https, host, 443),
            allowed,
            "{host}"
        );
    }
}

#[test]
fn a_star_never_covers_what_must_be_named() {
    for text in ["*", "*:*", "tcp://*", "0.0.0.0/0,::/0"] {
        let rules = rules(text);
        for (address, network, allowed) in [
            ("93.184.216.34:80", HOST, true),
            ("10.0.0.1:80", POD, true),
            ("169.254.169.254:80", POD, false),
            ("[::ffff:169.254.169.254]:80", POD, false),
            ("[64:ff9b::a9fe:a9fe]:80", POD, false),
            ("[fe80::1]:80", POD, false),
            ("[fd00:ec2::254]:80", POD, false),
            ("127.0.0.1:80", POD, true),
            ("127.0.0.1:80", HOST, false),
            ("[::1]:80", HOST, false),
            ("0.0.0.0:80", HOST, false),
        ] {
            let found = rules.allows_addr(Scheme::Tcp, addr(address), network);
            assert_eq!(found, allowed, "{text}: {address}");
        }
    }
}

#[test]
fn what_must_be_named_can_be_named() {
    for (text, address) in [
        ("169.254.169.254:80", "169.254.169.254:80"),
        ("169.254.0.0/16", "169.254.169.254:80"),
        ("127.0.0.1", "127.0.0.1:80"),
        ("127.0.0.0/8", "127.0.0.1:80"),
        ("[::1]:80", "[::1]:80"),
        ("fe80::/10", "[fe80::1]:80"),
    ] {
        assert!(
            rules(text).allows_addr(Scheme::Tcp, addr(address), HOST),
            "{text}: {address}"
        );
    }
}

#[test]
fn a_name_does_not_lead_to_where_nobody_may_go() {
    let by_name = rules("http://example.com, http://localhost");
    for (host, address, network, allowed) in [
        ("example.com", "93.184.216.34:80", HOST, true),
        ("example.com", "169.254.169.254:80", POD, false),
        ("example.com", "127.0.0.1:80", HOST, false),
        ("example.com", "127.0.0.1:80", POD, true),
        ("localhost", "127.0.0.1:80", HOST, true),
        ("localhost", "[::1]:80", HOST, true),
        ("localhost", "169.254.169.254:80", HOST, false),
        ("other.com", "93.184.216.34:80", POD, false),
    ] {
        let found = by_name.allows_resolved(Scheme::Http, host, addr(address), network);
        assert_eq!(found, allowed, "{host} at {address}");
    }
    // A star lets every name through, and judges by where it leads.
    let star = rules("http://*");
    assert!(star.allows_name(Scheme::Http, "evil.example", 80));
    let leads = |address| star.allows_resolved(Scheme::Http, "evil.example", addr(address), HOST);
    assert!(leads("93.184.216.34:80"));
    assert!(!leads("169.254.169.254:80"));
    assert!(!leads("127.0.0.1:80"));
    assert!(!star.allows_resolved(Scheme::Http, "localhost", addr("127.0.0.1:80"), HOST));
}

#[test]
fn names_are_looked_up_only_for_sockets_that_could_use_them() {
    for (text, wanted) in [
        ("tcp://db.example:5432", true),
        ("db.example", true),
        ("*", true),
        ("http://example.com", false),
        ("tcp://10.0.0.1", false),
    ] {
        assert_eq!(rules(text).wants_lookup(), wanted, "{text}");
    }
    let rules = rules("tcp://a.example:1, udp://b.example, http://c.example");
    let names: Vec<_> = rules.names(Scheme::Tcp, 1).collect();
    assert_eq!(names, ["a.example"]);
    assert_eq!(rules.names(Scheme::Tcp, 2).count(), 0);
}

#[test]
fn what_is_no_rule_is_refused_by_what_is_wrong_with_it() {
    for (text, problem) in [
        ("ftp://example.com", "scheme"),
        ("://example.com", "scheme"),
        ("example.com,", "extra comma"),
        (",", "extra comma"),
        ("example.com:", "port"),
        ("example.com:x", "port"),
        ("example.com:+80", "port"),
        ("example.com:65536", "port"),
        ("example.com:90-80", "ends before"),
        ("example.com:80-", "port"),
        ("10.0.0.1/8", "prefix"),
        ("10.0.0.0/33", "prefix"),
        ("10.0.0.0/x", "prefix"),
        ("example.com/8", "CIDR"),
        ("10.0.0", "neither"),
        ("256.0.0.1", "neither"),
        ("0x7f.1", "neither"),
        ("tcp://a.0xFE", "neither"),
        ("0x7f000001", "neither"),
        ("*.0x", "neither"),
        ("*example.com", "neither"),
        ("*.", "neither"),
        ("a..b", "neither"),
        ("http://user@example.com", "neither"),
        ("http://example.com/path", "CIDR"),
        ("[::1", "bracket"),
        ("[::1]x", "not a port"),
        ("tcp://*.example.com", "address only"),
        ("http://", "neither"),
        ("exa mple.com", "neither"),
    ] {
        let error = Rules::parse(text).expect_err(text);
        assert!(error.contains(problem), "{text}: {error}");
    }
}

#[test]
fn only_names_of_rules_about_sockets_are_looked_up() {
    for (text, name, allowed) in [
        ("tcp://db.example:1", "db.example", true),
        ("tcp://db.example:1", "DB.example.", true),
        ("tcp://db.example:1", "secret.db.example", false),
        ("https://db.example", "db.example", false),
        ("udp://*", "anything", true),
        ("10.0.0.0/8", "db.example", false),
        ("10.0.0.0/8", "10.0.0.1", true),
        ("*.example", "a.example", true),
        ("", "a", false),
    ] {
        assert_eq!(rules(text).allows_lookup(name), allowed, "{text}: {name}");
    }
}

/// Texts of the characters that rules are made of, the same at each run.
fn texts(count: usize) -> impl Iterator<Item = String> {
    const PARTS: [&str; 30] = [
        "tcp",
        "udp",
        "http",
        "https",
        "://",
        ":",
        "/",
        ",",
        "*",
        "*.",
        ".",
        "-",
        "[",
        "]",
        " ",
        "10.0.0.0",
        "169.254.169.254",
        "::1",
        "::ffff:",
        "fe80::",
        "example",
        "com",
        "localhost",
        "0",
        "8",
        "65535",
        "65536",
        "99999999999999999999",
        "é",
        "\0",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..count).map(move |_| {
        let parts = next() % 9;
        (0..parts)
            .map(|_| PARTS[(next() % PARTS.len() as u64) as usize])
            .collect()
    })
}

#[test]
fn any_text_is_rules_or_refused_and_rules_keep_what_they_promise() {
    let node = [
        "169.254.169.254:80",
        "[fe80::1]:80",
        "[::ffff:169.254.169.254]:80",
    ]
    .map(addr);
    let mut valid = 0;
    for text in texts(200_000) {
        let Ok(rules) = Rules::parse(&text) else {
            continue;
        };
        valid += 1;
        // Nothing lies beyond itself, everything beyond nothing.
        assert_eq!(rules.first_beyond(&rules), None, "{text}");
        assert_eq!(
            rules.first_beyond(&Rules::default()).is_none(),
            rules.is_empty()
        );
        for address in node {
            // What must be named was.
            if rules.allows_addr(Scheme::Tcp, address, HOST) {
                assert!(
                    text.contains("169.254") || text.contains("fe80"),
                    "{text} reaches {address}"
                );
            }
        }
        if rules.allows_name(Scheme::Tcp, "example.com", 80) {
            assert!(text.contains('*') || text.contains("example.com"), "{text}");
        }
    }
    assert!(valid > 1000, "{valid}");
}

#[test]
fn the_nodes_own_addresses_take_a_rule_of_their_own() {
    let node: Vec<IpAddr> = ["10.0.0.5", "2001:db8::5"]
        .map(|address| address.parse().expect("address"))
        .to_vec();
    let allows = |rules: &str, address: &str, host: bool| {
        let mut rules = Rules::parse(rules).expect("rules");
        rules.set_node(&node);
        rules.allows_addr(Scheme::Tcp, address.parse().expect("address"), host)
    };
    for host in [false, true] {
        for wide in [
            "*",
            "10.0.0.0/24",
            "0.0.0.0/0",
            "tcp://*:443",
            "[2001:db8::/64]",
        ] {
            for address in [
                "10.0.0.5:443",
                "[::ffff:10.0.0.5]:443",
                "[64:ff9b::a00:5]:443",
                "[2001:db8::5]:443",
            ] {
                assert!(!allows(wide, address, host), "{wide} {address}");
            }
        }
        assert!(allows("*", "10.0.0.6:443", host));
        assert!(allows("tcp://10.0.0.5:443", "10.0.0.5:443", host));
        assert!(allows("10.0.0.5/32", "[::ffff:10.0.0.5]:443", host));
        assert!(!allows("tcp://10.0.0.5:443", "10.0.0.5:10250", host));
    }
    let mut named = Rules::parse("https://api.example, *.example").expect("rules");
    named.set_node(&node);
    let resolved = |address: &str| {
        let address = address.parse().expect("address");
        named.allows_resolved(Scheme::Https, "api.example", address, false)
    };
    assert!(resolved("10.0.0.6:443"));
    assert!(!resolved("10.0.0.5:443"));
}
