//! The containerds that the suites run under.

use crate::paths;
use std::fmt;
use std::path::PathBuf;
use std::process::Command;

/// A line of containerd releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The one that Debian 12 packages: task API 2, the bare address as the
    /// answer to `start`, no images with Wasm layers.
    V1_6,
    /// The one in Debian unstable: task API 3.
    V2_1,
}

impl Version {
    /// Every version the suites know, oldest first.
    pub const ALL: [Self; 2] = [Self::V1_6, Self::V2_1];

    /// Where its `containerd` and `ctr` are.
    pub fn programs(self) -> PathBuf {
        match self {
            Self::V1_6 => PathBuf::from("/usr/bin"),
            Self::V2_1 => paths::repository().join("target/containerd-2.1/usr/bin"),
        }
    }

    /// Makes it available if need be, or says why it is not.
    ///
    /// # Errors
    /// The reason, in one line.
    pub fn obtain(self) -> Result<(), String> {
        if self == Self::V2_1 {
            let script = paths::repository().join("tests/get-containerd-2.1.sh");
            let got = Command::new(&script)
                .output()
                .map_err(|e| format!("{}: {e}", script.display()))?;
            if !got.status.success() {
                return Err(String::from_utf8_lossy(&got.stderr).trim().to_owned());
            }
        }
        for name in ["containerd", "ctr"] {
            let program = self.programs().join(name);
            let said = Command::new(&program)
                .arg("--version")
                .output()
                .map_err(|e| format!("{}: {e}", program.display()))?;
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            let found = said.split_whitespace().any(|word| {
                word.trim_start_matches('v')
                    .starts_with(&format!("{self}."))
            });
            if !found {
                return Err(format!(
                    "{} is not {self} but {:?}",
                    program.display(),
                    said.trim()
                ));
            }
        }
        Ok(())
    }

    /// Whether it can unpack an image some of whose layers are Wasm.
    pub fn unpacks_wasm_layers(self) -> bool {
        self != Self::V1_6
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1_6 => "1.6",
            Self::V2_1 => "2.1",
        })
    }
}
