//! What the node's owner and the pod say a guest gets.

use super::refused::refused;
use super::{Case, fails, works};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::os::unix::fs::symlink;
use wisp_tests::{Run, Test};

pub fn cases() -> Vec<Case> {
    super::cases(
        "policy",
        &[
            ("a profile is picked by its name", profiles),
            ("what is beyond the node's ceiling fails Create", ceilings),
            (
                "an annotation that is not for pods fails Create",
                not_theirs,
            ),
            ("a namespace has terms of its own", namespaces),
            ("a changed policy holds for the next container", reloaded),
            ("the policy limits a guest's memory", memory),
            ("a guest sees the variables it is to see", environment),
            ("a guest finds the directories it is to find", preopens),
            ("an import that is denied fails Create or traps", interfaces),
            ("random numbers can be the same at each run", seeded),
            ("clocks can be coarse", coarse),
            (
                "values of wasi:config come from annotations and a directory",
                configured,
            ),
        ],
    )
}

/// The policy, in a configuration whose cache is the test's own.
fn config(test: &Test<'_>, policy: &str) -> String {
    let dir = test.dir().display();
    format!("[cache]\ndir = \"{dir}/aot\"\nrun_dir = \"{dir}/aot-run\"\n{policy}")
}

fn profiles(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let run = |profile: &str| test.run(&image).annotation("io.wisp.profile", profile);
    ensure!(works(run("default").args(&["list", "/"]))?.contains("tour.wasm"));
    fails(run("strict").args(&["list", "/"]))?;
    works(run("open").args(&["write", "/new", "text"]))?;
    refused(
        run("strict")
            .annotation("io.wisp.net.outbound", "*")
            .args(&["args"]),
        &["io.wisp.net.outbound", "of the profile"],
    )?;
    refused(run("stric").args(&["args"]), &["io.wisp.profile", "strict"])?;
    let own = config(
        test,
        "[policy]\nprofiles = [\"bare\"]\n[profiles.bare.annotations]\n\
         \"io.wisp.fs.root\" = \"none\"\n",
    );
    fails(run("bare").config(&own)?.args(&["list", "/"]))?;
    refused(
        run("open").config(&own)?.args(&["args"]),
        &["io.wisp.profile", "bare"],
    )
}

fn ceilings(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let config = config(
        test,
        "[policy.ceiling]\nfs_root = \"ro\"\nnet_outbound = \"tcp://10.0.0.0/8:80\"\n\
         net_listen = \"\"\n",
    );
    let run = |key: &str, value: &str| -> Result<Run<'_, '_>> {
        let run = test.run(&image).config(&config)?;
        Ok(run.annotation(key, value).args(&["args", "ran"]))
    };
    for (key, value, setting) in [
        ("io.wisp.fs.root", "rw", "policy.ceiling.fs_root"),
        ("io.wisp.net.outbound", "*", "policy.ceiling.net_outbound"),
        (
            "io.wisp.net.outbound",
            "tcp://10.0.0.1:80,tcp://11.0.0.1:80",
            "tcp://11.0.0.1:80",
        ),
        (
            "io.wisp.net.listen",
            "tcp://*:80",
            "policy.ceiling.net_listen",
        ),
    ] {
        refused(run(key, value)?, &[key, setting])?;
    }
    ensure!(works(run("io.wisp.net.outbound", "tcp://10.1.0.0/16:80")?)?.contains("ran"));
    Ok(())
}

fn not_theirs(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let config = config(test, "[policy]\nannotations = [\"io.wisp.env.*\"]\n");
    let run = test.run(&image).config(&config)?.args(&["args", "ran"]);
    refused(
        run.clone().annotation("io.wisp.fs.root", "none"),
        &["io.wisp.fs.root", "io.wisp.env.*"],
    )?;
    works(run.annotation("io.wisp.env.deny", "PATH")).map(drop)
}

fn namespaces(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let own = format!(
        "[policy.namespaces.\"{}\"]\nprofile = \"strict\"\n",
        test.namespace()
    );
    let strict = config(test, &own);
    fails(test.run(&image).config(&strict)?.args(&["list", "/"]))?;
    let others = config(
        test,
        "[policy.namespaces.elsewhere]\nprofile = \"strict\"\n",
    );
    works(test.run(&image).config(&others)?.args(&["list", "/"])).map(drop)
}

fn reloaded(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let list = |policy: &str| -> Result<Run<'_, '_>> {
        Ok(test
            .run(&image)
            .config(&config(test, policy))?
            .args(&["list", "/"]))
    };
    works(list("")?)?;
    fails(list("[policy]\nprofile = \"strict\"\n")?)?;
    let path = test.dir().join("config.toml").display().to_string();
    refused(
        list("[policy]\nprofile = \"strict\"\nprofil = 1\n")?,
        &[&path, "line 6", "profil"],
    )?;
    refused(
        list("[policy]\nprofile = \"no\"\n")?,
        &[&path, "line 5", "policy.profile"],
    )?;
    works(list("")?).map(drop)
}

fn memory(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let config = config(test, "[policy.ceiling]\nmemory_max = \"16Mi\"\n");
    let run = test.run(&image).config(&config)?.args(&["hog", "100"]);
    let told = fails(run.annotation("io.wisp.memory.max", "1Gi"))?;
    ensure!(told.contains("policy.ceiling.memory_max"), "{told}");
    Ok(())
}

fn environment(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let run = || {
        test.run(&image)
            .env("APP_MODE", "x")
            .env("SECRET", "y")
            .args(&["env"])
    };
    let all = works(run())?;
    ensure!(
        all.contains("APP_MODE=x") && all.contains("SECRET=y"),
        "{all}"
    );
    let some = works(run().annotation("io.wisp.env.deny", "SECRET,PATH"))?;
    ensure!(
        some.contains("APP_MODE=x") && !some.contains("SECRET"),
        "{some}"
    );
    let only = works(run().annotation("io.wisp.env.allow", "APP_*"))?;
    ensure!(only == "APP_MODE=x\n", "{only}");
    refused(
        run().annotation("io.wisp.env.allow", "A=B"),
        &["io.wisp.env.allow"],
    )
}

fn preopens(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let data = test.dir().join("data");
    fs::create_dir_all(data.join("in"))?;
    fs::write(data.join("in/file"), "text")?;
    let mount = format!(
        "type=bind,src={},dst=/data,options=rbind:rw",
        data.display()
    );
    let run = |value: &str| {
        test.run(&image)
            .flags(&["--mount", &mount])
            .annotation("io.wisp.fs.preopens", value)
    };
    ensure!(works(run("/data/in:ro").args(&["read", "/data/in/file"]))?.contains("text"));
    fails(run("/data/in:ro").args(&["write", "/data/in/file", "mine"]))?;
    fails(run("/data/in:ro").args(&["list", "/"]))?;
    fails(run("/data/in:ro").args(&["list", "/data/in/.."]))?;
    works(run("/data/in").args(&["write", "/data/in/file", "mine"]))?;
    ensure!(fs::read(data.join("in/file"))? == b"mine");
    refused(run("../data").args(&["args"]), &["io.wisp.fs.preopens"])?;
    refused(run("/nowhere").args(&["args"]), &["/nowhere"])?;
    let none = run("/etc").annotation("io.wisp.fs.root", "none");
    refused(
        none.args(&["args"]),
        &["io.wisp.fs.preopens", "not in a volume"],
    )
}

fn interfaces(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let deny = || {
        test.run(&image)
            .annotation("io.wisp.interfaces.deny", "wasi:sockets")
    };
    refused(
        deny().args(&["args"]),
        &["wasi:sockets/", "io.wisp.interfaces.deny"],
    )?;
    let traps = || deny().annotation("io.wisp.interfaces.denied", "trap");
    ensure!(works(traps().args(&["args", "ran"]))? == "ran\n");
    let ended = traps().args(&["resolve", "localhost"]).ctr()?;
    let told = ended.err();
    ensure!(ended.code == 134 && told.contains("is denied"), "{ended:?}");
    let module = test.image("tour-module")?;
    let allow = |names: &str| {
        test.run(&module)
            .annotation("io.wisp.interfaces.allow", names)
            .args(&["args", "ran"])
    };
    refused(
        allow("wasi:cli"),
        &["wasi_snapshot_preview1", "io.wisp.interfaces.allow"],
    )?;
    ensure!(works(allow("wasi_snapshot_preview1"))? == "ran\n");
    let traps = allow("wasi:cli").annotation("io.wisp.interfaces.denied", "trap");
    ensure!(traps.ctr()?.code == 134);
    Ok(())
}

fn seeded(test: &Test<'_>) -> Result<()> {
    for guest in ["tour", "tour-module"] {
        let image = test.image(guest)?;
        let random = |source: &str| {
            let run = test.run(&image).annotation("io.wisp.random", source);
            works(run.args(&["random", "64"]))
        };
        let first = random("seed:7")?;
        ensure!(first.len() > 100, "{first}");
        ensure!(random("seed:7")? == first, "{guest}: not the same");
        ensure!(random("seed:8")? != first, "{guest}: the same");
        ensure!(random("host")? != random("host")?, "{guest}: the same");
    }
    Ok(())
}

fn coarse(test: &Test<'_>) -> Result<()> {
    for guest in ["tour", "tour-module"] {
        let image = test.image(guest)?;
        let clocks = |clocks: &str| -> Result<[Vec<u64>; 2]> {
            let run = test.run(&image).annotation("io.wisp.clocks", clocks);
            let told = works(run.args(&["clocks"]))?;
            ensure!(told.contains("monotonic advances"), "{told}");
            let numbers = |name: &str| -> Result<Vec<u64>> {
                let line = told.lines().find_map(|line| line.strip_prefix(name));
                let numbers = line.with_context(|| format!("no{name}"))?;
                Ok(numbers
                    .split_whitespace()
                    .map(str::parse)
                    .collect::<Result<_, _>>()?)
            };
            Ok([numbers("moments")?, numbers("resolutions")?])
        };
        let whole = |moment: &u64| moment.is_multiple_of(1_000_000);
        let [told, resolutions] = clocks("coarse")?;
        ensure!(told.len() == 20 && told.iter().all(whole), "{told:?}");
        ensure!(resolutions == [1_000_000; 2], "{guest}: {resolutions:?}");
        // One in a million would be, of each.
        let [told, resolutions] = clocks("exact")?;
        ensure!(!told.iter().all(whole), "{guest}: coarse unasked");
        ensure!(resolutions != [1_000_000; 2], "{guest}: {resolutions:?}");
    }
    Ok(())
}

fn configured(test: &Test<'_>) -> Result<()> {
    let image = test.image("config")?;
    // As kubelet mounts a ConfigMap: links to a directory that is replaced.
    let dir = test.dir().join("values");
    fs::create_dir_all(dir.join("..now"))?;
    symlink("..now", dir.join("..data"))?;
    for (name, value) in [("mode", "file"), ("greeting", "good\nmorning")] {
        fs::write(dir.join("..now").join(name), value)?;
        symlink(format!("..data/{name}"), dir.join(name))?;
    }
    let mount = format!(
        "type=bind,src={},dst=/etc/app,options=rbind:ro",
        dir.display()
    );
    let run = || {
        test.run(&image)
            .flags(&["--mount", &mount])
            .annotation("io.wisp.config.mode", "annotation")
            .annotation("io.wisp.config.log.level", "debug")
    };
    let with_dir = || run().annotation("io.wisp.config-dir", "/etc/app");
    let own = "log.level=debug\nmode=annotation\n";
    ensure!(works(run())? == own);
    let all = works(with_dir())?;
    ensure!(all == format!("greeting=good\nmorning\n{own}"), "{all}");
    let hidden = with_dir().annotation("io.wisp.fs.root", "none");
    ensure!(works(hidden)? == all, "without a root");
    let asked = works(with_dir().args(&["mode", "greeting", "nothing"]))?;
    ensure!(
        asked == "mode=annotation\ngreeting=good\nmorning\nnothing is not set\n",
        "{asked}"
    );
    ensure!(works(test.run(&image))?.is_empty(), "values from nowhere");
    // Links lead nowhere but into the container.
    let secret = test.file("secret", "of the host")?;
    symlink(&secret, dir.join("stolen"))?;
    let all = works(with_dir())?;
    ensure!(
        !all.contains("stolen") && !all.contains("of the host"),
        "{all}"
    );
    for (value, word) in [("etc", "absolute"), ("/etc/../etc", "absolute")] {
        let run = run().annotation("io.wisp.config-dir", value);
        refused(run, &["io.wisp.config-dir", word])?;
    }
    fs::write(dir.join("large"), vec![b'x'; (1 << 20) + 1])?;
    refused(with_dir(), &["1 MiB"])?;
    refused(
        run().annotation("io.wisp.config-dir", "/nowhere"),
        &["/nowhere"],
    )
}
