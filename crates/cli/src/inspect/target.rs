//! What is inspected: a program, or those of an image, wherever it is.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use wisp_image::{ImageProgram, Images, LocalImages};

use super::program::Program;
use crate::cache::{Containerd, variable};

/// The largest program that is read, in bytes: the compiler takes less.
const LARGEST: u64 = 1 << 30;

/// A program, and where it is.
#[derive(Debug, Serialize)]
pub struct Inspected {
    /// The image that it is of.
    pub image: Option<String>,
    /// What it is called there.
    pub path: String,
    /// Both, for people.
    #[serde(skip)]
    pub title: String,
    #[serde(flatten)]
    pub program: Program,
}

/// Reads the programs that `target` names.
///
/// # Errors
/// What cannot be read, is no Wasm, or has none in it.
pub fn read(
    target: &Path,
    containerd: &Containerd,
    namespace: Option<&str>,
) -> Result<Vec<Inspected>> {
    let name = target.display().to_string();
    if name == "-" {
        return Ok(vec![alone(&name, io::stdin().lock())?]);
    }
    let images = match target.try_exists().with_context(|| name.clone())? {
        true => match LocalImages::open(target)? {
            Some(images) => images.programs()?,
            None => {
                let file = File::open(target).with_context(|| format!("read {name}"))?;
                return Ok(vec![alone(&name, file)?]);
            }
        },
        // No file has such a name; an image of containerd's may.
        false => vec![(name.clone(), by_name(&name, containerd, namespace)?)],
    };
    let mut inspected = Vec::new();
    for (image, programs) in images {
        for program in programs {
            inspected.push(of_image(&image, program)?);
        }
    }
    if inspected.is_empty() {
        bail!("{name}: has no Wasm layer and starts no file that is called .wasm");
    }
    Ok(inspected)
}

fn by_name(
    name: &str,
    containerd: &Containerd,
    namespace: Option<&str>,
) -> Result<Vec<ImageProgram>> {
    let namespace = namespace
        .map(str::to_owned)
        .or_else(|| variable("CONTAINERD_NAMESPACE"))
        .unwrap_or_else(|| "default".into());
    let images = Images::connect(&containerd.address(), &namespace)
        .with_context(|| format!("{name} is no file, and as an image it cannot be looked for"))?;
    let programs = images.programs(name);
    programs.with_context(|| format!("{name} is no file and no image"))
}

fn alone(name: &str, from: impl Read) -> Result<Inspected> {
    let bytes = whole(from).with_context(|| format!("read {name}"))?;
    Ok(Inspected {
        image: None,
        path: name.to_owned(),
        title: name.to_owned(),
        program: Program::read(&bytes).with_context(|| name.to_owned())?,
    })
}

fn of_image(image: &str, program: ImageProgram) -> Result<Inspected> {
    let (path, bytes) = match program {
        ImageProgram::Layer(layer) => {
            let path = layer.title.clone().unwrap_or_else(|| layer.digest.clone());
            (path, whole(layer.open()?))
        }
        ImageProgram::File { path, file } => (path, whole(file)),
    };
    let title = format!("{image} {path}");
    let bytes = bytes.with_context(|| format!("read {title}"))?;
    Ok(Inspected {
        image: Some(image.to_owned()),
        path,
        program: Program::read(&bytes).with_context(|| title.clone())?,
        title,
    })
}

fn whole(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(LARGEST + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > LARGEST {
        true => Err(io::Error::other("too large for a program")),
        false => Ok(bytes),
    }
}
