//! What `args[0]` of an exec means in a Wasm container.

use std::cell::RefCell;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use oci_spec::runtime::Process;
use wisp_image::{ImageError, Program, Rootfs, WasmLayer};

use super::join;
use crate::control::ExecRequest;
use crate::error::ContainerError;
use crate::init::jail;

/// What is to be run.
pub enum Choice {
    /// A Wasm program.
    Wasm(Program),
    /// A native program of the root file system.
    Native,
    /// Nothing that could be, and why.
    Nothing(String),
}

/// Finds what `request` asks for, in the container whose first process, `first`,
/// was started with `own`: a file in the file system as the container sees it,
/// with its volumes; else a Wasm layer, by its title; else, by the same name,
/// what the container itself runs.
///
/// # Errors
/// When the container is gone or its image cannot be looked at.
pub fn choose(
    request: &ExecRequest,
    own: &Process,
    first: BorrowedFd<'_>,
) -> Result<Choice, ContainerError> {
    let root = PathBuf::from(format!("/proc/{}/root{}", request.pid, jail::ROOTFS));
    let rootfs = Rootfs::open(&root)?;
    join::check_alive(first)?;
    let process = &request.process;
    let args = process.args().clone().unwrap_or_default();
    let arg = args.first().cloned().unwrap_or_default();
    let env = process.env().clone().unwrap_or_default();
    let path = env.iter().find_map(|pair| pair.strip_prefix("PATH="));
    let cwd = process.cwd().to_string_lossy().into_owned();
    let own_name = own.args().iter().flatten().next().cloned();

    let titles = RefCell::new(Vec::new());
    let mut layers = || {
        let mut layers = wisp_image::layers(&request.containerd, &request.namespace, &request.id)?;
        *titles.borrow_mut() = layers
            .iter()
            .filter_map(|layer| layer.title.clone())
            .collect();
        // A container with one layer starts it by any name; here that would
        // make every name a program.
        if own_name.as_deref() != Some(arg.as_str()) {
            layers.retain(|layer| is_titled(layer, &arg));
        }
        Ok(layers)
    };
    match wisp_image::choose(&args, path, &cwd, &rootfs, &mut layers) {
        Ok(Program::Native) => Ok(Choice::Native),
        Ok(program) => Ok(Choice::Wasm(program)),
        Err(
            error @ (ImageError::NoArgs
            | ImageError::NotFound { .. }
            | ImageError::NotAProgram { .. }
            | ImageError::Precompiled { .. }
            | ImageError::WhichLayer { .. }),
        ) => Ok(Choice::Nothing(explain(
            &error.to_string(),
            own_name.as_deref(),
            &titles.borrow(),
        ))),
        Err(error) => Err(error.into()),
    }
}

fn is_titled(layer: &WasmLayer, arg: &str) -> bool {
    let file_name = |text: &str| text.rsplit('/').next().unwrap_or_default().to_owned();
    layer
        .title
        .as_deref()
        .is_some_and(|title| file_name(title) == file_name(arg))
}

/// The line on stderr of a process that cannot be.
fn explain(error: &str, own: Option<&str>, titles: &[String]) -> String {
    let mut text = format!(
        "cannot execute: {error}. This is a WebAssembly container: it can execute WebAssembly \
         files and native programs that its file system has"
    );
    if let Some(own) = own {
        text.push_str(&format!(", its own program as {own:?}"));
    }
    if !titles.is_empty() {
        text.push_str(&format!(", the image's layers {}", titles.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_executed_is_said_in_one_line() {
        let text = explain(
            "no sh",
            Some("/app.wasm"),
            &["a.wasm".into(), "b.wasm".into()],
        );
        assert!(text.starts_with("cannot execute: no sh. "), "{text}");
        assert!(text.contains("\"/app.wasm\""), "{text}");
        assert!(text.ends_with("a.wasm, b.wasm"), "{text}");
        assert!(!text.contains('\n'), "{text}");
    }
}
