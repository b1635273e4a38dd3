//! The pod's network: its address, localhost between containers, names.

use super::Case;
use anyhow::{Context, Result, ensure};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use wisp_tests::cri::Test;
use wisp_tests::dns;
use wisp_tests::http;

pub fn cases() -> Vec<Case> {
    super::cases(
        "network",
        &[
            ("a Wasm server answers at the pod's address", pod_address),
            (
                "a native sidecar reaches a Wasm server on localhost",
                sidecar_to_guest,
            ),
            (
                "a Wasm server reaches a native sidecar on localhost",
                guest_to_sidecar,
            ),
            ("one pod's guest reaches another pod's server", pod_to_pod),
            ("a port of the host leads to a Wasm server", host_port),
            (
                "hostNetwork is the host's, star and loopback apart",
                host_network,
            ),
            (
                "the pod's name servers answer a guest's lookups",
                name_servers,
            ),
            ("the pod's /etc/hosts answers a guest's lookups", hosts_file),
            ("the pod's host name is the containers'", host_name),
        ],
    )
}

fn is(address: SocketAddr, path: &str, expected: &str) -> Result<()> {
    let response = http::get_from(address, path)?;
    ensure!(
        response.status == 200 && response.text() == expected,
        "{address}{path}: {} {:?}",
        response.status,
        response.text()
    );
    Ok(())
}

const HELLO: &str = "hello from wasi:http 0.2\n";

fn pod_address(test: &Test<'_>) -> Result<()> {
    let pod = test
        .pod("server")
        .annotation("io.wisp.http.listen", "0.0.0.0:9000")
        .run()?;
    pod.container("app", &test.image("http-02")?).start()?;
    // No retry: a container that has started listens.
    is(format!("{}:9000", pod.address()?).parse()?, "/", HELLO)
}

fn sidecar_to_guest(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("pair").run()?;
    pod.container("server", &test.image("http-02")?).start()?;
    let said = pod
        .container("sidecar", &test.busybox()?)
        .args(&["busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/"])
        .succeeds()?;
    ensure!(said == HELLO, "{said:?}");
    Ok(())
}

fn guest_to_sidecar(test: &Test<'_>) -> Result<()> {
    let pod = test
        .pod("pair")
        .annotation("io.wisp.net.outbound", "http://127.0.0.1:8000")
        .run()?;
    let site = test.volume("site")?;
    test.file("site/page", "from the sidecar\n")?;
    pod.container("sidecar", &test.busybox()?)
        .read_only(&site, "/site")
        .args(&[
            "busybox",
            "httpd",
            "-f",
            "-p",
            "127.0.0.1:8000",
            "-h",
            "/site",
        ])
        .start()?;
    pod.container("app", &test.image("http-02")?).start()?;
    let address = format!("{}:8080", pod.address()?).parse()?;
    let fetch = "/outbound?url=http://127.0.0.1:8000/page";
    let found = wisp_tests::wait::until(wisp_tests::wait::PATIENCE, || {
        // The sidecar says nothing when it listens.
        is(address, fetch, "from the sidecar\n").ok()
    });
    found.context("the sidecar was not reached")?;
    // Nothing else of the pod's loopback is granted.
    let response = http::get_from(address, "/outbound?url=http://127.0.0.1:8080/")?;
    ensure!(response.status == 502, "{response:?}");
    Ok(())
}

fn pod_to_pod(test: &Test<'_>) -> Result<()> {
    let server = test.pod("server").run()?;
    server.container("app", &test.image("http-02")?).start()?;
    let target = server.address()?;
    let client = test
        .pod("client")
        .annotation("io.wisp.net.outbound", &format!("http://{target}:8080"))
        .run()?;
    client.container("app", &test.image("http-02")?).start()?;
    is(
        format!("{}:8080", client.address()?).parse()?,
        &format!("/outbound?url=http://{target}:8080/"),
        HELLO,
    )
}

fn host_port(test: &Test<'_>) -> Result<()> {
    let port = http::free_port()?;
    let pod = test.pod("published").host_port(port, 8080).run()?;
    pod.container("app", &test.image("http-02")?).start()?;
    let host = IpAddr::V4(test.node.network().gateway());
    is(SocketAddr::new(host, port), "/", HELLO)
}

fn host_network(test: &Test<'_>) -> Result<()> {
    let port = http::free_port()?;
    let pod = test
        .pod("host")
        .host_network()
        .annotation("io.wisp.http.listen", &format!("127.0.0.1:{port}"))
        .annotation("io.wisp.net.outbound", "*")
        .run()?;
    ensure!(
        pod.address().is_err(),
        "a pod of the host's network has an address"
    );
    pod.container("app", &test.image("http-02")?).start()?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    is(address, "/", HELLO)?;
    // A service of the node is not the pod's, whatever the star says.
    let service = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("/outbound?url=http://{}/", service.local_addr()?);
    let response = http::get_from(address, &url)?;
    ensure!(response.status == 502, "{response:?}");
    service.set_nonblocking(true)?;
    ensure!(service.accept().is_err(), "the guest connected");
    Ok(())
}

fn name_servers(test: &Test<'_>) -> Result<()> {
    let gateway = test.node.network().gateway();
    let pod = test
        .pod("names")
        .dns(&gateway.to_string(), "space.svc.cluster.test")
        .annotation("io.wisp.net.outbound", "tcp://*:5432")
        .run()?;
    let answer = Ipv4Addr::new(10, 96, 3, 7);
    let server = dns::Server::start(gateway, "db.space.svc.cluster.test", answer)?;
    let image = test.image("tour")?;
    for name in ["db", "db.space.svc.cluster.test"] {
        let said = pod
            .container(&name.replace('.', "-"), &image)
            .args(&["resolve", name])
            .succeeds()
            .with_context(|| format!("{name}; asked were {:?}", server.asked()))?;
        ensure!(said == format!("{answer}\n"), "{name}: {said:?}");
    }
    let said = pod
        .container("unknown", &image)
        .args(&["resolve", "nobody"])
        .fails()?;
    ensure!(said.contains("nobody"), "{said}");
    Ok(())
}

fn hosts_file(test: &Test<'_>) -> Result<()> {
    let pod = test
        .pod("names")
        .annotation("io.wisp.net.outbound", "tcp://*:5432")
        .run()?;
    // kubelet writes this file itself and mounts it.
    let hosts = test.file("hosts", "127.0.0.1 localhost\n10.1.2.3 cache.local cache\n")?;
    for name in ["cache", "cache.local"] {
        let said = pod
            .container(&name.replace('.', "-"), &test.image("tour")?)
            .volume(&hosts, "/etc/hosts")
            .args(&["resolve", name])
            .succeeds()?;
        ensure!(said == "10.1.2.3\n", "{name}: {said:?}");
    }
    Ok(())
}

fn host_name(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("web-0").run()?;
    let said = pod
        .container("native", &test.busybox()?)
        .args(&[
            "sh",
            "-c",
            "busybox hostname; cat /etc/hostname; echo $HOSTNAME",
        ])
        .succeeds()?;
    ensure!(said == "web-0\nweb-0\nweb-0\n", "{said:?}");
    let image = test.image("tour")?;
    let app = |name, args: &[&str]| pod.container(name, &image).args(args).succeeds();
    let file = app("file", &["read", "/etc/hostname"])?;
    ensure!(file == "web-0\n", "{file:?}");
    let variable = app("variable", &["env", "HOSTNAME"])?;
    ensure!(variable == "web-0\n", "{variable:?}");
    Ok(())
}
