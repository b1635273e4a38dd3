//! What `wisp inspect` tells of images, wherever they are.

use super::Case;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::process::Command;
use std::time::Duration;
use wisp_tests::oci::{Entry, Image};
use wisp_tests::run::Ended;
use wisp_tests::{Test, Version, command, paths};

pub fn cases() -> Vec<Case> {
    super::cases(
        "inspect",
        &[
            ("an image is read by its name and from archives", images),
            ("what a pod gives an image is told", against),
            ("what has no program in it is an error", errors),
        ],
    )
}

fn inspect(test: &Test<'_>, args: &[&str]) -> Result<Ended> {
    let mut inspect = Command::new(paths::wisp());
    inspect
        .arg("inspect")
        .arg("--address")
        .arg(test.node.socket())
        .args(["-n", test.namespace()])
        .args(args)
        .env_remove("CONTAINERD_NAMESPACE");
    command::run(&mut inspect, Vec::new(), Duration::from_secs(60))
}

fn told(test: &Test<'_>, args: &[&str]) -> Result<String> {
    let ended = inspect(test, args)?;
    ensure!(ended.code == 0, "{args:?}: {ended:?}");
    Ok(ended.out())
}

/// An image whose Wasm is a layer of its own, for platforms of which one is this.
fn artifact(test: &Test<'_>) -> Result<String> {
    let program = std::fs::read(paths::guest("config")?)?;
    test.built("inspected-artifact", |reference, output| {
        Image::new(&["app.wasm"])
            .files(&[Entry::Dir("empty")])?
            .wasm("application/wasm", Some("app.wasm"), program)
            .write(reference, true, output)
    })
}

fn images(test: &Test<'_>) -> Result<()> {
    let mut images = vec![(test.image("http-02")?, "/http-02.wasm", "outbound HTTP")];
    // 1.6 has no images with layers of other kinds.
    if test.node.version() == Version::V2_1 {
        images.push((artifact(test)?, "app.wasm", "values of configuration"));
    }
    for (image, path, need) in images {
        let by_name = told(test, &[&image])?;
        let title = format!("{image} {path}\n");
        ensure!(
            by_name.starts_with(&title) && by_name.contains(need),
            "{by_name}"
        );
        let exported = test.dir().join("exported.tar");
        let exported = exported.to_str().context("path")?;
        let mut export = vec!["image", "export"];
        if test.node.version() == Version::V2_1 {
            // Otherwise ctr can end before it has written what containerd sends it.
            export.push("--local");
        }
        export.extend([exported, &image]);
        test.ctr_ok(&export)?;
        ensure!(told(test, &[exported])? == by_name, "of an archive");
        let folder = test.dir().join("layout");
        std::fs::create_dir_all(&folder)?;
        let mut tar = Command::new("tar");
        tar.args(["-xf", exported, "-C"]).arg(&folder);
        let ended = command::run(&mut tar, Vec::new(), Duration::from_secs(60))?;
        ensure!(ended.code == 0, "{ended:?}");
        let folder = folder.to_str().context("path")?;
        ensure!(told(test, &[folder])? == by_name, "of a folder");
        let json: Value = serde_json::from_str(&told(test, &["--json", &image])?)?;
        ensure!(
            json[0]["image"] == image.as_str() && json[0]["path"] == path,
            "{json}"
        );
        ensure!(json[0]["kind"] == "component", "{json}");
        let yaml = told(test, &["--suggest", folder])?;
        ensure!(yaml.contains(&format!("# {title}")), "{yaml}");
        ensure!(yaml.contains("io.wisp.interfaces.allow: "), "{yaml}");
        std::fs::remove_dir_all(folder)?;
    }
    Ok(())
}

fn against(test: &Test<'_>) -> Result<()> {
    let image = test.image("http-02")?;
    let pod = |rules: &str| {
        let text = format!(
            "kind: Pod\nmetadata:\n  name: web\n  annotations:\n    \
             io.wisp.net.outbound: \"{rules}\"\n"
        );
        test.file("pod.yaml", text)
    };
    let file = pod("https://api.example.com")?;
    let file = file.to_str().context("path")?;
    let text = told(test, &["--against", file, &image])?;
    ensure!(
        text.starts_with(&format!("Pod/web, {image} /http-02.wasm\n")),
        "{text}"
    );
    ensure!(
        text.contains("outbound HTTP to: https://api.example.com"),
        "{text}"
    );
    pod("tcp://10.0.0.1:1")?;
    let ended = inspect(test, &["--json", "--against", file, &image])?;
    ensure!(ended.code == 1, "{ended:?}");
    let json: Value = serde_json::from_str(&ended.out())?;
    let missing = json[0]["missing"][0].as_str().context("nothing missing")?;
    ensure!(missing.contains("outbound HTTP"), "{json}");
    Ok(())
}

fn errors(test: &Test<'_>) -> Result<()> {
    let fails = |args: &[&str], words: &[&str]| -> Result<()> {
        let ended = inspect(test, args)?;
        let told = ended.err();
        ensure!(ended.code == 1 && ended.stdout.is_empty(), "{ended:?}");
        ensure!(words.iter().all(|word| told.contains(word)), "{told}");
        Ok(())
    };
    fails(
        &["localhost/nothing:here"],
        &["no file and no image", "localhost/nothing:here"],
    )?;
    fails(&[&test.busybox()?], &["no Wasm layer"])?;
    let folder = test.dir().to_str().context("path")?;
    fails(&[folder], &[folder, "index.json"])?;
    let file = test.file("text.wasm", "no program")?;
    fails(
        &[file.to_str().context("path")?],
        &["text.wasm", "not WebAssembly"],
    )
}
