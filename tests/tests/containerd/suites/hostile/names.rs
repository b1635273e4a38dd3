//! Names that lead to where nobody may go, at once or later.

use super::super::{Case, cases as all};
use super::all_denied;
use super::network::Host;
use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use std::net::Ipv4Addr;
use std::path::Path;
use wisp_tests::random::Random;
use wisp_tests::{Run, Running, Test, dns, http};

pub fn cases() -> Vec<Case> {
    all(
        "hostile names",
        &[
            (
                "a granted name does not grant a forbidden address",
                forbidden,
            ),
            ("a name that changes its address changes nothing", rebinding),
        ],
    )
}

const OUT: &str = "io.wisp.net.outbound";

/// Names, all granted, and where they lead.
const NAMES: [(&str, &str); 6] = [
    ("cloud.hostile.test", "169.254.169.254"),
    ("host.hostile.test", "127.0.0.1"),
    ("six.hostile.test", "::1"),
    ("mapped.hostile.test", "::ffff:127.0.0.1"),
    ("link.hostile.test", "fe80::1"),
    ("nothing.hostile.test", "0.0.0.0"),
];

/// Starts it with these files in the places where the resolver looks. `ctr`
/// mounts the host's there for the host's network.
fn start<'t, 'n>(
    test: &'t Test<'n>,
    run: Run<'t, 'n>,
    files: &[(&str, &Path)],
) -> Result<Running<'t, 'n>> {
    let id = run.create_with(|spec| {
        let Some(mounts) = spec["mounts"].as_array_mut() else {
            return;
        };
        for (name, source) in files {
            let destination = format!("/etc/{name}");
            mounts.retain(|mount| mount["destination"] != destination.as_str());
            mounts.push(json!({
                "destination": destination,
                "type": "bind",
                "source": source,
                "options": ["rbind", "ro"],
            }));
        }
    })?;
    Running::start(test, &id)
}

fn forbidden(test: &Test<'_>) -> Result<()> {
    let lines: String = NAMES
        .map(|(name, address)| format!("{address} {name}\n"))
        .concat();
    let hosts = test.file("hosts", lines)?;
    let host = Host::listen()?;
    let granted = NAMES.map(|(name, _)| name).join(",");
    let image = test.image("hostile")?;
    let targets = NAMES.map(|(name, _)| format!("{name}:{}", host.port));
    for protocol in ["tcp", "udp"] {
        let mut args = vec!["connect", protocol];
        args.extend(targets.iter().map(String::as_str));
        let run = test.run(&image).net_host().annotation(OUT, &granted);
        let ended = start(test, run.args(&args), &[("hosts", &hosts)])?.finish()?;
        if protocol == "tcp" {
            all_denied(&ended, NAMES.len())?;
        }
        // A datagram is taken from the guest before its fate is known.
        let told = ended.err();
        ensure!(
            told.contains("wisp: refused: connecting to 169.254.169.254"),
            "{ended:?}"
        );
        host.nobody_came()?;
    }
    for (guest, granted) in [("http-02", "*.hostile.test"), ("http-03", granted.as_str())] {
        let image = test.image(guest)?;
        let run = test.run(&image).net_host().annotation(OUT, granted);
        let told = fetches(test, run, &[("hosts", &hosts)], &targets)?;
        ensure!(told.contains("http to cloud.hostile.test"), "{told}");
        host.nobody_came()?;
    }
    Ok(())
}

/// A server that is told to fetch from each of `targets` and does not get there;
/// answers what its host said.
fn fetches<'t, 'n>(
    test: &'t Test<'n>,
    run: Run<'t, 'n>,
    files: &[(&str, &Path)],
    targets: &[String],
) -> Result<String> {
    let port = http::free_port()?;
    let run = run.annotation("io.wisp.http.listen", &format!("127.0.0.1:{port}"));
    let running = start(test, run, files)?;
    for target in targets {
        let response = http::get(port, &format!("/outbound?url=http://{target}/"))?;
        ensure!(
            response.status == 502,
            "{target}: {} {}",
            response.status,
            response.text()
        );
    }
    Ok(running.end_by(Signal::SIGTERM)?.err())
}

/// A name server of the test's own that answers with these in turn.
fn server(name: &'static str, addresses: &[Ipv4Addr]) -> Result<(dns::Server, Ipv4Addr)> {
    let mut random = Random::new(Random::seed());
    // Some other test may have the first.
    for _ in 0..20 {
        let mut part = || u8::try_from(random.below(254) + 1).unwrap_or(1);
        let at = Ipv4Addr::new(127, part(), part(), part());
        if let Ok(server) = dns::Server::changing(at, name, addresses.to_vec()) {
            return Ok((server, at));
        }
    }
    anyhow::bail!("no port 53 to be had")
}

fn rebinding(test: &Test<'_>) -> Result<()> {
    const NAME: &str = "changing.hostile.test";
    // The first may be asked, though nobody is there; the others may not.
    let addresses = [
        Ipv4Addr::BROADCAST,
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::new(169, 254, 169, 254),
    ];
    let (server, at) = server(NAME, &addresses)?;
    let resolv = test.file("resolv.conf", format!("nameserver {at}\n"))?;
    let hosts = test.file("hosts", "")?;
    let host = Host::listen()?;
    let target = format!("{NAME}:{}", host.port);
    let files: [(&str, &Path); 2] = [("resolv.conf", &resolv), ("hosts", &hosts)];

    let image = test.image("hostile")?;
    let mut args = vec!["connect", "tcp"];
    args.extend([target.as_str(); 12]);
    let run = test
        .run(&image)
        .net_host()
        .annotation(OUT, &format!("tcp://{NAME}"));
    let running = start(test, run.args(&args), &files)?;
    let (out, _) = all_denied(&running.finish()?, 4)?;
    let lines = out.lines().filter(|line| line.contains(NAME)).count();
    ensure!(lines == 12, "{out}");
    host.nobody_came()?;

    let image = test.image("http-02")?;
    let run = test
        .run(&image)
        .net_host()
        .annotation(OUT, &format!("http://{NAME}"));
    let told = fetches(test, run, &files, &vec![target; 6])?;
    ensure!(told.contains(&format!("http to {NAME}")), "{told}");
    host.nobody_came()?;
    let asked = server.asked();
    ensure!(asked.len() > 10, "{asked:?}");
    drop(server);
    Ok(())
}
