//! What goes through kubelet's streams: exec, attach, logs, ports.

use super::Case;
use super::samples::front;
use super::world::{PATIENCE, TOUR, World, create, delete, phase, pod, until_ready};
use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use wisp_tests::http;
use wisp_tests::kubernetes::Kubectl;

pub const CASES: &[Case] = &[
    ("kubectl exec runs a Wasm program", exec),
    ("kubectl exec -i talks with it", talk),
    ("kubectl attach -i is its stdin", attach),
    ("kubectl logs -f follows it to its end", follow),
    ("kubectl port-forward reaches its port", forward),
    ("kubectl cp says that there is no tar", absent),
];

fn one(kubectl: &Kubectl) -> Result<String> {
    let pods = kubectl.get(&["pods", "-l", "app.kubernetes.io/name=front"])?;
    let items = pods["items"].as_array().context("no pods")?;
    let ready = items.iter().find(|pod| {
        pod["metadata"]["deletionTimestamp"].is_null()
            && pod["status"]["containerStatuses"][0]["ready"] == true
    });
    let name = ready.context("none is ready")?["metadata"]["name"].as_str();
    Ok(name.context("no name")?.to_owned())
}

fn exec(world: &World) -> Result<()> {
    let kubectl = front(world)?;
    let name = one(kubectl)?;
    let exec = |words: &[&str]| {
        let all = [&["exec", &name, "--", "/bin/tour.wasm"], words].concat();
        kubectl.run(&all, "")
    };
    let said = exec(&["args", "one", "two words"])?;
    ensure!(
        said.code == 0 && said.out() == "one\ntwo words\n",
        "{said:?}"
    );
    let said = exec(&["exit", "3"])?;
    ensure!(said.code == 3, "{said:?}");
    let said = exec(&["trap"])?;
    ensure!(
        said.code == 134 && said.err().contains("unreachable"),
        "{said:?}"
    );
    let shell = kubectl.run(&["exec", &name, "--", "sh"], "")?;
    ensure!(shell.code != 0 && shell.err().contains("sh"), "{shell:?}");
    Ok(())
}

fn talk(world: &World) -> Result<()> {
    let kubectl = front(world)?;
    let name = one(kubectl)?;
    let text = "line\n".repeat(20_000);
    let said = kubectl.run(&["exec", "-i", &name, "--", "/bin/tour.wasm", "cat"], &text)?;
    ensure!(
        said.code == 0 && said.out() == text,
        "{} bytes came back",
        said.stdout.len()
    );
    Ok(())
}

fn attach(world: &World) -> Result<()> {
    let kubectl = world.installed()?;
    let mut listens = pod("listens", TOUR, &["cat"]);
    listens["spec"]["containers"][0]["stdin"] = true.into();
    listens["spec"]["containers"][0]["stdinOnce"] = true.into();
    create(kubectl, &listens)?;
    until_ready(kubectl, "listens")?;
    let said = kubectl.run(&["attach", "-i", "listens"], "to the guest\n")?;
    ensure!(
        said.code == 0 && said.out().contains("to the guest"),
        "{said:?}"
    );
    phase(kubectl, "listens", "Succeeded")?;
    let logs = kubectl.ok(&["logs", "listens"])?;
    ensure!(logs == "to the guest\n", "{logs:?}");
    delete(kubectl, "listens")
}

fn follow(world: &World) -> Result<()> {
    let kubectl = world.installed()?;
    create(kubectl, &pod("talks", TOUR, &["sleep", "3000"]))?;
    until_ready(kubectl, "talks")?;
    let said = kubectl.ok(&["logs", "-f", "talks"])?;
    ensure!(said.starts_with("sleeping"), "{said:?}");
    phase(kubectl, "talks", "Succeeded")?;
    create(kubectl, &pod("floods", TOUR, &["flood", "1m"]))?;
    phase(kubectl, "floods", "Succeeded")?;
    let said = kubectl.ok(&["logs", "floods"])?;
    ensure!(said.len() == 1 << 20, "{} bytes", said.len());
    delete(kubectl, "talks")?;
    delete(kubectl, "floods")
}

fn forward(world: &World) -> Result<()> {
    let kubectl = front(world)?;
    let mut forward = kubectl
        .command(&["port-forward", "service/front", ":80"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    // Open to the end: it says more.
    let mut said = BufReader::new(forward.stdout.take().context("no stdout")?);
    let read = said.read_line(&mut line);
    let asked = read.map_err(anyhow::Error::from).and_then(|_| {
        // Forwarding from 127.0.0.1:41234 -> 8080
        let port = line
            .split(['>', ' '])
            .find_map(|word| word.strip_prefix("127.0.0.1:"));
        let port = port.with_context(|| line.clone())?.parse()?;
        http::get(port, "/")
    });
    forward.kill()?;
    forward.wait()?;
    let answer = asked?;
    ensure!(
        answer.status == 200 && answer.text().contains("hello from"),
        "{answer:?}"
    );
    Ok(())
}

/// No shell and no tar are in an image of one program.
fn absent(world: &World) -> Result<()> {
    let kubectl = front(world)?;
    let name = one(kubectl)?;
    let seconds = format!("--request-timeout={}s", PATIENCE.as_secs());
    let said = kubectl.run(
        &["cp", &format!("{name}:/etc"), "/tmp/copied", &seconds],
        "",
    )?;
    // kubectl has what tar says of errors in its own output.
    let words = "\"tar\" is not in the image";
    ensure!(said.code != 0 && said.out().contains(words), "{said:?}");
    Ok(())
}
