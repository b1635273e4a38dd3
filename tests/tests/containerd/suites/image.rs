//! The node installer's image: `scripts/image.sh` makes it of the programs under
//! test, containerd imports it, and runc runs what is in it.

use super::Case;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use wisp_tests::run::{Ended, RUNC};
use wisp_tests::{Test, command, paths};

/// How long packing the programs may take.
const PATIENCE: Duration = Duration::from_secs(120);
const NAME: &str = concat!("localhost/wisp/node-installer:", env!("CARGO_PKG_VERSION"));

pub fn cases() -> Vec<Case> {
    super::cases(
        "image",
        &[
            ("what is in the installer's image runs", runs),
            ("what no image can be made of is refused", refused),
        ],
    )
}

fn make(dir: &Path, out: &Path) -> Result<Ended> {
    let mut image = Command::new(paths::repository().join("scripts/image.sh"));
    image.arg(dir).arg(out);
    command::run(&mut image, Vec::new(), PATIENCE)
}

/// As much of an ELF file as says for which machine it is.
fn foreign(machine: u8) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[..4].copy_from_slice(b"\x7fELF");
    bytes[18] = machine;
    bytes
}

const PROGRAMS: [&str; 3] = ["containerd-shim-wisp-v1", "wisp", "wisp-node-installer"];

fn runs(test: &Test<'_>) -> Result<()> {
    // Two machines, one of which is this one.
    let dir = test.dir().join("programs");
    let (own, other, code) = match std::env::consts::ARCH {
        "x86_64" => ("x86_64", "aarch64", 183),
        _ => ("aarch64", "x86_64", 62),
    };
    for arch in [own, other] {
        fs::create_dir_all(dir.join(arch))?;
    }
    for program in PROGRAMS {
        fs::copy(paths::binaries().join(program), dir.join(own).join(program))
            .with_context(|| format!("{program} is missing: run `make build`"))?;
        fs::write(dir.join(other).join(program), foreign(code))?;
    }
    let tar = test.dir().join("image.oci.tar");
    let made = make(&dir, &tar)?;
    ensure!(made.code == 0, "{made:?}");
    let tar = tar.to_string_lossy();
    test.ctr_ok(&["image", "import", &tar])?;
    let listed = test.ctr_ok(&["image", "ls"])?.out();
    ensure!(listed.contains(NAME), "{listed}");
    ensure!(
        listed.contains("linux/amd64") && listed.contains("linux/arm64"),
        "{listed}"
    );
    let version = env!("CARGO_PKG_VERSION");
    for (args, says) in [
        (
            ["/wisp-node-installer", "--version"],
            format!("wisp-node-installer {version}\n"),
        ),
        (["/wisp", "--version"], format!("wisp {version}\n")),
        (
            ["/containerd-shim-wisp-v1", "-v"],
            format!("Version: {version}\n"),
        ),
    ] {
        let ended = test.run(NAME).runtime(RUNC).args(&args).ctr()?;
        ensure!(ended.code == 0 && ended.out().contains(&says), "{ended:?}");
    }
    // Where no node is mounted it says so.
    let ended = test
        .run(NAME)
        .runtime(RUNC)
        .args(&[
            "/wisp-node-installer",
            "run",
            "--node",
            "n",
            "--kubernetes",
            "http://127.0.0.1:1",
        ])
        .ctr()?;
    ensure!(
        ended.code == 1 && ended.err().contains("/host is no node's root directory"),
        "{ended:?}"
    );
    // The key is the same in all programs, or the shim would not run what wisp compiles.
    let mut wisp = Command::new(paths::wisp());
    let said = command::run(wisp.arg("--version"), Vec::new(), PATIENCE)?.out();
    let keys: Vec<&str> = said
        .split_whitespace()
        .skip_while(|word| *word != "aot-key")
        .filter(|word| word.len() == 16 && word.chars().all(|c| c.is_ascii_hexdigit()))
        .collect();
    ensure!(keys.len() == 2 && keys[0] == keys[1], "{said}");
    Ok(())
}

fn refused(test: &Test<'_>) -> Result<()> {
    let dir = test.dir().join("some");
    let out = test.dir().join("out.tar");
    fs::create_dir_all(dir.join("x86_64"))?;
    let missing = make(&dir, &out)?;
    ensure!(
        missing.code != 0 && missing.err().contains("containerd-shim-wisp-v1 is missing"),
        "{missing:?}"
    );
    for program in PROGRAMS {
        fs::write(dir.join("x86_64").join(program), foreign(183))?;
    }
    let wrong = make(&dir, &out)?;
    ensure!(
        wrong.code != 0 && wrong.err().contains("is not for x86_64"),
        "{wrong:?}"
    );
    fs::write(dir.join("x86_64/wisp"), "#!/bin/sh\n")?;
    fs::write(dir.join("x86_64/containerd-shim-wisp-v1"), "#!/bin/sh\n")?;
    let script = make(&dir, &out)?;
    ensure!(
        script.code != 0 && script.err().contains("is no program"),
        "{script:?}"
    );
    let nowhere = make(Path::new("/nowhere"), &out)?;
    ensure!(
        nowhere.code != 0 && nowhere.err().contains("/nowhere"),
        "{nowhere:?}"
    );
    ensure!(!out.exists(), "something was made");
    Ok(())
}
