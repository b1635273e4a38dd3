//! A container's arguments, environment and files, as pod specs give them.

use super::Case;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use wisp_tests::cri::{Container, Describe, Pod, Test};
use wisp_tests::{http, leaks, oci, paths};

pub fn cases() -> Vec<Case> {
    super::cases(
        "volumes",
        &[
            (
                "command, args and environment are the guest's",
                process_of_commands,
            ),
            (
                "arguments and environment are there for each request",
                process_of_servers,
            ),
            ("a volume is writable or not, as the pod says", read_write),
            ("a config map's files are read and not written", config_map),
            ("a secret is for its user alone", secret),
            (
                "an emptyDir is shared by guests and native programs",
                empty_dir,
            ),
            (
                "a single file of a volume can be mounted (subPath)",
                sub_path,
            ),
            ("volumes lie in volumes", nested),
            (
                "a projected volume is swapped while a server runs",
                swapped_server,
            ),
            (
                "a projected volume is swapped while a command runs",
                swapped_command,
            ),
            (
                "what a guest writes to /dev/termination-log is kubelet's",
                termination_log,
            ),
            (
                "a volume covers what the image has in its place",
                over_the_image,
            ),
            (
                "a link in the image leads a volume into the image",
                through_a_link,
            ),
            (
                "readOnlyRootFilesystem: nothing is written to the image",
                nothing_written,
            ),
            (
                "a guest that may write to its root may, beside volumes",
                writable_root,
            ),
        ],
    )
}

/// Both kinds of commands.
const GUESTS: [&str; 2] = ["tour", "tour-module"];

fn app<'p, 't, 'n>(
    pod: &'p Pod<'t, 'n>,
    name: &str,
    args: &[&str],
) -> Result<Describe<'p, 't, 'n>> {
    Ok(pod.container(name, &pod.test().image("tour")?).args(args))
}

fn server<'p, 't, 'n>(
    pod: &'p Pod<'t, 'n>,
    describe: impl FnOnce(Describe<'p, 't, 'n>) -> Describe<'p, 't, 'n>,
) -> Result<(Container<'p, 't, 'n>, SocketAddr)> {
    let container = pod.container("server", &pod.test().image("http-02")?);
    let container = describe(container).start()?;
    Ok((container, format!("{}:8080", pod.address()?).parse()?))
}

fn process_of_commands(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("process").run()?;
    for guest in GUESTS {
        let image = test.image(guest)?;
        let run = |name: &str| pod.container(&format!("{guest}-{name}"), &image);
        let path = format!("/{guest}.wasm");
        let said = run("args")
            .args(&["args", "one", "two words", ""])
            .succeeds()?;
        ensure!(said == "one\ntwo words\n\n", "{guest}: {said:?}");
        let said = run("command")
            .command(&[&path, "args", "three"])
            .succeeds()?;
        ensure!(said == "three\n", "{guest}: {said:?}");
        let said = run("both")
            .command(&[&path])
            .args(&["args", "four"])
            .succeeds()?;
        ensure!(said == "four\n", "{guest}: {said:?}");
        let said = run("env")
            .env("EMPTY", "")
            .env("MULTI", "a=b\nc")
            .args(&["env", "MULTI"])
            .succeeds()?;
        ensure!(said == "a=b\nc\n", "{guest}: {said:?}");
    }
    // A bare name is looked for in the working directory.
    let said = pod
        .container("directory", &test.image("tour")?)
        .command(&["tour.wasm", "args", "five"])
        .working_dir("/")
        .succeeds()?;
    ensure!(said == "five\n", "{said:?}");
    Ok(())
}

fn process_of_servers(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("process").run()?;
    let (_server, address) = server(&pod, |container| {
        container
            .args(&["one", "two words"])
            .env("GREETING", "hello")
            .env("GREETING", "hello again")
    })?;
    for _ in 0..2 {
        let environment = http::get_from(address, "/env")?.text();
        let greetings: Vec<&str> = environment
            .lines()
            .filter(|line| line.starts_with("GREETING="))
            .collect();
        ensure!(greetings == ["GREETING=hello again"], "{environment}");
        let arguments = http::get_from(address, "/args")?.text();
        ensure!(arguments.ends_with("one\ntwo words\n"), "{arguments}");
    }
    Ok(())
}

fn read_write(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("volumes").run()?;
    let volume = test.volume("data")?;
    fs::write(volume.join("note"), "noted\n")?;
    for guest in GUESTS {
        let image = test.image(guest)?;
        let run = |name: &str, args: &[&str]| {
            pod.container(&format!("{guest}-{name}"), &image).args(args)
        };
        let said = run("read", &["read", "/data/note"])
            .read_only(&volume, "/data")
            .succeeds()?;
        ensure!(said == "noted\n", "{said:?}");
        run("refused", &["write", "/data/new", "text"])
            .read_only(&volume, "/data")
            .fails()?;
        ensure!(
            !volume.join("new").exists(),
            "a read-only volume was written"
        );
        run("write", &["write", "/data/new", "text"])
            .volume(&volume, "/data")
            .succeeds()?;
        ensure!(
            fs::read_to_string(volume.join("new"))? == "text",
            "not written"
        );
        fs::remove_file(volume.join("new"))?;
    }
    Ok(())
}

/// Files as kubelet's atomic writer lays them out: each is a link into `..data`,
/// which is a link to a directory of the current version.
fn project(volume: &Path, version: &str, files: &[(&str, &str)]) -> Result<()> {
    let dir = volume.join(format!("..{version}"));
    fs::create_dir_all(&dir)?;
    for (name, text) in files {
        fs::write(dir.join(name), text)?;
        let link = volume.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new("..data").join(name), link)?;
        }
    }
    let new = volume.join("..data_tmp");
    symlink(format!("..{version}"), &new)?;
    fs::rename(new, volume.join("..data"))?;
    Ok(())
}

fn config_map(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("configured").run()?;
    let volume = test.volume("config")?;
    project(&volume, "1", &[("app.toml", "size = 1\n"), ("extra", "")])?;
    let run = |name: &str, args: &[&str]| -> Result<_> {
        Ok(app(&pod, name, args)?.read_only(&volume, "/etc/app"))
    };
    let said = run("read", &["read", "/etc/app/app.toml"])?.succeeds()?;
    ensure!(said == "size = 1\n", "{said:?}");
    let said = run("list", &["list", "/etc/app"])?.succeeds()?;
    ensure!(
        said.contains("app.toml") && said.contains("extra"),
        "{said:?}"
    );
    run("write", &["write", "/etc/app/app.toml", "size = 2"])?.fails()?;
    run("remove", &["remove", "/etc/app/extra"])?.fails()?;
    let (_server, address) = server(&pod, |container| container.read_only(&volume, "/etc/app"))?;
    let text = http::get_from(address, "/file?path=/etc/app/app.toml")?.text();
    ensure!(text == "size = 1\n", "{text:?}");
    Ok(())
}

fn secret(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("secretive").run()?;
    let volume = test.volume("secret")?;
    let key = volume.join("key");
    fs::write(&key, "hush\n")?;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o400))?;
    nix::unistd::chown(&key, Some(1234.into()), Some(1234.into()))?;
    let run = |name: &str, user: i64| -> Result<_> {
        Ok(app(&pod, name, &["read", "/secret/key"])?
            .read_only(&volume, "/secret")
            .user(user, user))
    };
    let said = run("owner", 1234)?.succeeds()?;
    ensure!(said == "hush\n", "{said:?}");
    run("other", 4321)?.fails()?;
    Ok(())
}

fn empty_dir(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("sharing").run()?;
    let volume = test.volume("scratch")?;
    let (_server, address) = server(&pod, |container| container.volume(&volume, "/scratch"))?;
    pod.container("native", &test.busybox()?)
        .volume(&volume, "/cache")
        .args(&["sh", "-c", "echo native > /cache/a"])
        .succeeds()?;
    let text = http::get_from(address, "/file?path=/scratch/a")?.text();
    ensure!(text == "native\n", "{text:?}");
    app(&pod, "guest", &["write", "/other/b", "guest"])?
        .volume(&volume, "/other")
        .succeeds()?;
    let text = http::get_from(address, "/file?path=/scratch/b")?.text();
    ensure!(text == "guest", "{text:?}");
    Ok(())
}

fn sub_path(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("single").run()?;
    let file = test.file("volume/settings", "one file\n")?;
    let run = |name: &str, args: &[&str]| app(&pod, name, args);
    for place in ["/etc/settings", "/settings", "/deep/er/settings"] {
        let name = place.replace('/', "-");
        let said = run(&format!("read{name}"), &["read", place])?
            .read_only(&file, place)
            .succeeds()?;
        ensure!(said == "one file\n", "{place}: {said:?}");
        run(&format!("write{name}"), &["write", place, "changed"])?
            .read_only(&file, place)
            .fails()?;
    }
    run("write", &["write", "/etc/settings", "changed"])?
        .volume(&file, "/etc/settings")
        .succeeds()?;
    ensure!(fs::read_to_string(&file)? == "changed", "not written");
    // Its neighbours in the volume are not there.
    test.file("volume/neighbour", "")?;
    let said = run("list", &["list", "/etc"])?
        .volume(&file, "/etc/settings")
        .succeeds()?;
    ensure!(!said.contains("neighbour"), "{said:?}");
    Ok(())
}

fn nested(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("nested").run()?;
    let (outer, inner) = (test.volume("outer")?, test.volume("inner")?);
    fs::write(outer.join("o"), "outer\n")?;
    fs::write(inner.join("i"), "inner\n")?;
    let single = test.file("file", "single\n")?;
    let run = |name: &str, args: &[&str]| -> Result<_> {
        Ok(app(&pod, name, args)?
            .volume(&outer, "/data")
            .read_only(&inner, "/data/in/side")
            .read_only(&single, "/data/in/file"))
    };
    for (name, path, expected) in [
        ("outer", "/data/o", "outer\n"),
        ("inner", "/data/in/side/i", "inner\n"),
        ("single", "/data/in/file", "single\n"),
    ] {
        let said = run(name, &["read", path])?.succeeds()?;
        ensure!(said == expected, "{path}: {said:?}");
    }
    run("write", &["write", "/data/new", "text"])?.succeeds()?;
    ensure!(
        outer.join("new").exists(),
        "the outer volume is not writable"
    );
    run("refused", &["write", "/data/in/side/new", "text"])?.fails()?;
    ensure!(!inner.join("new").exists(), "the inner volume was written");
    Ok(())
}

fn swapped_server(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("swapped").run()?;
    let volume = test.volume("config")?;
    project(&volume, "1", &[("level", "one\n")])?;
    let (_server, address) = server(&pod, |container| container.read_only(&volume, "/config"))?;
    for (version, text) in [("2", "two\n"), ("3", "three\n")] {
        project(&volume, version, &[("level", text)])?;
        let found = http::get_from(address, "/file?path=/config/level")?.text();
        ensure!(found == text, "{found:?}");
    }
    Ok(())
}

fn swapped_command(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("swapped").run()?;
    for guest in GUESTS {
        let volume = test.volume(guest)?;
        project(&volume, "1", &[("level", "one\n")])?;
        let container = pod
            .container(guest, &test.image(guest)?)
            .read_only(&volume, "/config")
            .args(&["watch", "/config/level", "three"])
            .start()?;
        for (version, text) in [("2", "two"), ("3", "three")] {
            container.says(if version == "2" { "one" } else { "two" })?;
            project(&volume, version, &[("level", &format!("{text}\n"))])?;
        }
        let status = container.wait()?;
        ensure!(status.exit_code == 0, "{guest}: {status:?}");
    }
    Ok(())
}

fn termination_log(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("last-words").run()?;
    for guest in GUESTS {
        let file = test.file(&format!("{guest}-termination-log"), "")?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666))?;
        pod.container(guest, &test.image(guest)?)
            .volume(&file, "/dev/termination-log")
            .user(1000, 1000)
            .args(&["append", "/dev/termination-log", "all is done"])
            .succeeds()?;
        let words = fs::read_to_string(&file)?;
        ensure!(words == "all is done\n", "{guest}: {words:?}");
    }
    Ok(())
}

/// `tour` in an image with files of its own.
fn furnished(test: &Test<'_>) -> Result<String> {
    let program = fs::read(paths::guest("tour")?)?;
    test.built("tour-furnished", |reference, output| {
        oci::Image::new(&["/tour.wasm"])
            .files(&[
                oci::Entry::Dir("etc"),
                oci::Entry::Dir("etc/app"),
                oci::Entry::File("etc/app/of-the-image", 0o644, b"image\n"),
                oci::Entry::File("etc/single", 0o644, b"image\n"),
                oci::Entry::Dir("real"),
                oci::Entry::Link("link", "real"),
                oci::Entry::File("tour.wasm", 0o755, &program),
            ])?
            .write(reference, false, output)
    })
}

fn over_the_image(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("over").run()?;
    let image = furnished(test)?;
    let volume = test.volume("config")?;
    fs::write(volume.join("of-the-pod"), "pod\n")?;
    let single = test.file("single", "pod\n")?;
    let run = |name: &str, args: &[&str]| {
        pod.container(name, &image)
            .args(args)
            .read_only(&volume, "/etc/app")
            .read_only(&single, "/etc/single")
    };
    let said = run("list", &["list", "/etc/app"]).succeeds()?;
    ensure!(said == "of-the-pod\n", "{said:?}");
    let said = run("single", &["read", "/etc/single"]).succeeds()?;
    ensure!(said == "pod\n", "{said:?}");
    Ok(())
}

fn through_a_link(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("link").run()?;
    let image = furnished(test)?;
    let volume = test.volume("data")?;
    fs::write(volume.join("note"), "noted\n")?;
    let run = |name: &str, args: &[&str]| {
        pod.container(name, &image)
            .args(args)
            .volume(&volume, "/link/data")
    };
    for (name, path) in [("link", "/link/data/note"), ("real", "/real/data/note")] {
        let said = run(name, &["read", path]).succeeds()?;
        ensure!(said == "noted\n", "{path}: {said:?}");
    }
    Ok(())
}

fn nothing_written(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("untouched").run()?;
    let volume = test.volume("data")?;
    let single = test.file("single", "single\n")?;
    for (name, image) in [
        ("bare", test.image("tour")?),
        ("furnished", furnished(test)?),
    ] {
        let container = pod
            .container(name, &image)
            .security(|security| security.readonly_rootfs = true)
            .volume(&volume, "/data")
            .read_only(&single, "/etc/new/single")
            .volume(&single, "/dev/termination-log")
            .args(&["sleep", "600000"])
            .start()?;
        container.says("sleeping")?;
        let written = leaks::below(&upper(test, &container.id)?);
        ensure!(written.is_empty(), "{name}: {written:?}");
        container.stop(0)?;
    }
    Ok(())
}

/// The directory that has what is written to a container's root file system.
fn upper(test: &Test<'_>, id: &str) -> Result<PathBuf> {
    let mut ctr = test.node.as_ref().ctr("k8s.io");
    let said = ctr.args(["snapshots", "mounts", "/nowhere", id]).output()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let upper = said
        .split([' ', ',', '\n'])
        .find_map(|option| option.strip_prefix("upperdir="));
    Ok(PathBuf::from(
        upper.with_context(|| format!("no overlay: {said}"))?,
    ))
}

fn writable_root(test: &Test<'_>) -> Result<()> {
    let pod = test
        .pod("writable")
        .annotation("io.wisp.fs.root", "rw")
        .run()?;
    let volume = test.volume("data")?;
    let run = |name: &str, args: &[&str]| -> Result<_> {
        Ok(app(&pod, name, args)?.volume(&volume, "/data/deep"))
    };
    let container = run("root", &["write", "/note", "text"])?.start()?;
    let status = container.wait()?;
    ensure!(status.exit_code == 0, "{status:?}");
    let written = fs::read_to_string(upper(test, &container.id)?.join("note"))?;
    ensure!(written == "text", "{written:?}");
    run("volume", &["write", "/data/deep/note", "text"])?.succeeds()?;
    ensure!(volume.join("note").exists(), "not in the volume");
    // What this says holds, whatever the annotation.
    run("refused", &["write", "/note", "text"])?
        .security(|security| security.readonly_rootfs = true)
        .fails()?;
    Ok(())
}
