//! Who is measured, and what each of them runs for one and the same job.

use anyhow::{Result, ensure};
use containerd_client::services::v1::container::Runtime;
use prost::Message;
use prost_types::Any;
use std::path::{Path, PathBuf};

/// What a container is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Print a line and end.
    Hello,
    /// Print the time of its first instruction and end.
    Clock,
    /// Stay.
    Idle,
}

/// One runtime.
#[derive(Clone, Debug)]
pub struct Contestant {
    /// Its name in tables and formulas.
    pub name: &'static str,
    /// The runtime's name or path, as containerd takes it.
    pub runtime: String,
    /// Whose binary runc's shim is to run.
    pub oci_binary: Option<&'static str>,
    /// The form of its programs.
    pub form: Form,
    /// What a node needs of it on its disk.
    pub files: Vec<PathBuf>,
    /// Whether it is one of the others with its program in another form, which
    /// is measured only where the form matters.
    pub variant: bool,
}

/// The form in which a contestant gets its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A native binary in an image with busybox.
    Native,
    /// Wasm as a file of the root file system.
    WasmFile,
    /// Wasm as a layer of its own.
    WasmLayer,
}

/// The files of the runs: where wisp, its former self and the peers are.
#[derive(Clone, Debug)]
pub struct Programs {
    pub binaries: PathBuf,
    pub baseline: Option<PathBuf>,
    pub peer: PathBuf,
    pub wasmtime: PathBuf,
}

const SHIM: &str = "containerd-shim-wisp-v1";
const RUNC: &str = "io.containerd.runc.v2";

impl Contestant {
    fn wisp(name: &'static str, directory: &Path) -> Result<Self> {
        let files = vec![directory.join(SHIM), directory.join("wisp")];
        for file in &files {
            ensure!(file.exists(), "{} is missing", file.display());
        }
        Ok(Self {
            name,
            runtime: files[0].canonicalize()?.display().to_string(),
            oci_binary: None,
            form: Form::WasmFile,
            files,
            variant: false,
        })
    }

    fn native(name: &'static str, binary: &str, shim: &Path) -> Option<Self> {
        let path = std::env::var_os("PATH")?;
        let program = std::env::split_paths(&path)
            .chain(["/usr/sbin", "/usr/bin"].map(PathBuf::from))
            .map(|dir| dir.join(binary))
            .find(|program| program.exists())?;
        Some(Self {
            name,
            runtime: RUNC.to_owned(),
            oci_binary: (name != "runc").then_some(name),
            form: Form::Native,
            files: vec![shim.join("containerd-shim-runc-v2"), program],
            variant: false,
        })
    }

    /// The runtime with its options, as containerd keeps it with a container.
    pub fn containerd_runtime(&self) -> Runtime {
        Runtime {
            name: self.runtime.clone(),
            options: self.oci_binary.map(|binary| Any {
                type_url: "containerd.runc.v1.Options".to_owned(),
                value: RuncOptions {
                    binary_name: binary.to_owned(),
                }
                .encode_to_vec(),
            }),
        }
    }

    /// What runs for a job.
    pub fn program(&self, job: Job) -> &'static str {
        match (self.form, job) {
            (Form::Native, _) => "native",
            (_, Job::Hello) => "hello",
            (_, Job::Clock | Job::Idle) => "start",
        }
    }

    /// The image for a job.
    pub fn image(&self, job: Job) -> String {
        image(self.program(job), self.form)
    }

    /// The arguments for a job, without which the image's own are meant.
    pub fn arguments(&self, job: Job) -> &'static [&'static str] {
        match (self.form, job) {
            (Form::Native, Job::Hello) => &["/bin/busybox", "echo", "hello"],
            (Form::Native, Job::Clock) => &["/bin/start"],
            (Form::Native, Job::Idle) => &["/bin/busybox", "sleep", "1000000"],
            (_, Job::Hello | Job::Clock) => &[],
            (_, Job::Idle) => &["/start.wasm", "idle"],
        }
    }
}

/// The reference of the image of a program in a form.
pub fn image(program: &str, form: Form) -> String {
    match form {
        Form::Native | Form::WasmFile => format!("localhost/bench/{program}:file"),
        Form::WasmLayer => format!("localhost/bench/{program}:layer"),
    }
}

/// The only field that is used of the options of runc's shim.
#[derive(Clone, PartialEq, Message)]
struct RuncOptions {
    #[prost(string, tag = "6")]
    binary_name: String,
}

/// Everybody who is there, wisp first, and a line for each one who is not. With
/// `layers`, containerd can run images whose program is a layer of its own.
///
/// # Errors
/// When wisp or runc is missing: without them there is nothing to say.
pub fn gather(
    programs: &Programs,
    containerd: &Path,
    layers: bool,
) -> Result<(Vec<Contestant>, Vec<String>)> {
    let mut here = vec![Contestant::wisp("wisp", &programs.binaries)?];
    let mut missing = Vec::new();
    match &programs.baseline {
        Some(directory) => here.push(Contestant::wisp("wisp-before", directory)?),
        None => missing.push("wisp-before: no BASELINE was given".to_owned()),
    }
    let runc = Contestant::native("runc", "runc", containerd);
    ensure!(runc.is_some(), "runc is not on this machine");
    here.extend(runc);
    match Contestant::native("crun", "crun", containerd) {
        Some(crun) => here.push(crun),
        None => missing.push("crun: not on this machine".to_owned()),
    }
    if programs.peer.exists() {
        here.push(Contestant {
            name: "runwasi",
            runtime: programs.peer.canonicalize()?.display().to_string(),
            oci_binary: None,
            form: Form::WasmFile,
            files: vec![programs.peer.clone()],
            variant: false,
        });
    } else {
        missing.push("runwasi: run benches/build.sh peers".to_owned());
    }
    if layers {
        let with_layers = |name: &'static str, of: &Contestant, variant| Contestant {
            name,
            form: Form::WasmLayer,
            variant,
            ..of.clone()
        };
        let wisp = with_layers("wisp-layer", &here[0], true);
        here.push(wisp);
        // Layers are what it keeps compiled: its better side is the one that counts.
        if let Some(runwasi) = here.iter_mut().find(|one| one.name == "runwasi") {
            let file = Contestant {
                name: "runwasi-file",
                variant: true,
                ..runwasi.clone()
            };
            *runwasi = with_layers("runwasi", runwasi, false);
            here.push(file);
        }
    } else {
        missing.push("images of layers: this containerd cannot unpack them".to_owned());
    }
    Ok((here, missing))
}
