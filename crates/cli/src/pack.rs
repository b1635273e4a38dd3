//! `wisp pack`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use wisp_image::pack::{Addition, Config, LayerType, Platform, Shape};

use crate::output;

const EXAMPLES: &str = "\
Examples:
  wisp pack app.wasm -t docker.io/library/app:latest -o app.tar
  ctr image import app.tar
  ctr run --rm --runtime io.containerd.wisp.v1 docker.io/library/app:latest app

  An image for two architectures, with files and a setting beside the program:
  wisp pack app.wasm -t app:v2 -o app.tar --platform linux/amd64 --platform linux/arm64 \\
      --add ./assets:/assets --env GREETING=hello --cmd serve

Which containerd runs what:
  plain images  every version from 1.6 on
  --artifact    1.6.25, 1.7.7 and later. Older ones refuse to unpack a layer that is no tar
                (\"no processor for media-type\"), whatever else is in the image
  --platform wasi/wasm
                with `ctr image import --all-platforms` only, and 2.1's own pull does not
                unpack it: prefer linux/...";

/// Make an image of a Wasm program, as an OCI archive for `ctr image import`
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Pack {
    /// The program: a component or core module. Several, each with its
    /// --platform, become one image for several platforms
    #[arg(required = true, value_name = "FILE")]
    programs: Vec<PathBuf>,
    /// What the image is called, in full: nothing is added to it
    #[arg(short = 't', long = "tag", value_name = "NAME")]
    tag: String,
    /// The archive to be written; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Put a file or a directory's content into the image; again for more. A
    /// DEST that ends with / is a directory for the file
    #[arg(long, value_name = "SOURCE:/DEST")]
    add: Vec<Addition>,
    /// Start this instead of /FILE; again for arguments that always follow it
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    entrypoint: Vec<String>,
    /// An argument that the program gets unless its user gives others; again
    /// for more
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    cmd: Vec<String>,
    /// Set a variable in the program's environment; again for more
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// The directory the program starts in
    #[arg(long, value_name = "/DIR", value_parser = absolute)]
    workdir: Option<String>,
    /// The user the program's process runs as
    #[arg(long, value_name = "USER[:GROUP]", value_parser = word)]
    user: Option<String>,
    /// Note something about the image; again for more
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    /// What the image is for, by default linux on this machine's architecture.
    /// With one FILE, again for an image that is the same on several
    /// platforms; with several, one for each in their order
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Vec<Platform>,
    /// Carry the program as a Wasm layer of its own instead of a file in a
    /// layer; --add makes an ordinary layer beside it
    #[arg(long)]
    artifact: bool,
    /// Media type of the Wasm layer, by default component or content by what
    /// FILE is
    #[arg(long, value_name = "TYPE", requires = "artifact")]
    layer_type: Option<Layer>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Layer {
    /// application/vnd.bytecodealliance.wasm.component.layer.v0+wasm
    #[value(alias = "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm")]
    Component,
    /// application/vnd.wasm.content.layer.v1+wasm
    #[value(alias = "application/vnd.wasm.content.layer.v1+wasm")]
    Content,
    /// application/wasm
    #[value(alias = "application/wasm")]
    Wasm,
}

impl Pack {
    /// Writes the image.
    ///
    /// # Errors
    /// Wrong input; then no file is written or changed.
    pub fn run(self) -> Result<()> {
        let platforms = match self.platform.as_slice() {
            [] => vec![Platform::host()],
            given => given.to_vec(),
        };
        let programs = match (self.programs.as_slice(), platforms.len()) {
            ([one], _) => platforms.into_iter().map(|p| (one.clone(), p)).collect(),
            (several, count) if several.len() == count => {
                several.iter().cloned().zip(platforms).collect()
            }
            (several, _) => bail!(
                "{} programs and {} of --platform: several programs need one each, in their order",
                several.len(),
                self.platform.len()
            ),
        };
        let shape = match (self.artifact, self.layer_type) {
            (false, _) => Shape::Plain,
            (true, None) => Shape::Artifact(LayerType::Auto),
            (true, Some(Layer::Component)) => Shape::Artifact(LayerType::Component),
            (true, Some(Layer::Content)) => Shape::Artifact(LayerType::Content),
            (true, Some(Layer::Wasm)) => Shape::Artifact(LayerType::Wasm),
        };
        let pack = wisp_image::pack::Pack {
            reference: self.tag,
            programs,
            shape,
            add: self.add,
            config: Config {
                entrypoint: self.entrypoint,
                cmd: self.cmd,
                env: self
                    .env
                    .into_iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect(),
                workdir: self.workdir,
                user: self.user,
                labels: self.label.into_iter().collect(),
            },
        };
        output::write(&self.output, |output| Ok(pack.write(output)?))
    }
}

/// Takes `NAME=VALUE` apart.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !text.contains('\0') => {
            Ok((name.into(), value.into()))
        }
        _ => Err("write NAME=VALUE".into()),
    }
}

fn absolute(text: &str) -> Result<String, String> {
    if text.starts_with('/') {
        Ok(text.into())
    } else {
        Err("write an absolute path, it is one in the image".into())
    }
}

fn word(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(char::is_whitespace) {
        Err("write a name or number, or two with a colon between".into())
    } else {
        Ok(text.into())
    }
}
