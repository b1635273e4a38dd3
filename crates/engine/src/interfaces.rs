//! Keeps a program from what its grant denies it to import.

use wasmtime::Engine;
use wasmtime::component::types::{self, ComponentItem};
use wasmtime::component::{Linker, LinkerInstance};
use wisp_capability::Interfaces;

use crate::error::EngineError;

/// The releases that Wasmtime's implementation has.
const RELEASE_2: &str = "0.2.12";
const RELEASE_3: &str = "0.3.0";

/// The first of `imports` that is denied, as an error. None, if denied imports
/// are to trap.
pub fn check<'a>(
    interfaces: &Interfaces,
    imports: impl Iterator<Item = &'a str>,
) -> Result<(), EngineError> {
    if interfaces.traps() || interfaces.is_everything() {
        return Ok(());
    }
    for import in imports {
        if let Some(remedy) = interfaces.refusal(import) {
            return Err(EngineError::Denied {
                import: import.into(),
                remedy,
            });
        }
    }
    Ok(())
}

/// Puts traps in the places of the functions that are denied to a component
/// of type `ty`. Types of resources stay: others may be made of them.
///
/// # Errors
/// A name that the linker cannot take.
pub fn trap<T: 'static>(
    interfaces: &Interfaces,
    engine: &Engine,
    ty: &types::Component,
    linker: &mut Linker<T>,
) -> wasmtime::Result<()> {
    if !interfaces.traps() || interfaces.is_everything() {
        return Ok(());
    }
    linker.allow_shadowing(true);
    for (name, import) in ty.imports(engine) {
        if let Some(remedy) = interfaces.refusal(name)
            && let ComponentItem::ComponentInstance(instance) = import.ty
        {
            let mut place = linker.instance(&of_host(name))?;
            for (function, export) in instance.exports(engine) {
                if let ComponentItem::ComponentFunc(ty) = export.ty {
                    let why = format!("{name}#{function} is denied: {remedy}");
                    put(&mut place, function, ty.async_(), why)?;
                }
            }
        }
    }
    linker.allow_shadowing(false);
    Ok(())
}

/// The name under which a linker has `import`: of each version of WASI, the
/// host has one release.
pub fn of_host(import: &str) -> String {
    match import.split_once('@') {
        Some((name, version)) if version.starts_with("0.3.") => format!("{name}@{RELEASE_3}"),
        Some((name, version)) if version.starts_with("0.2.") && !version.contains('-') => {
            format!("{name}@{RELEASE_2}")
        }
        _ => import.to_owned(),
    }
}

fn put<T: 'static>(
    place: &mut LinkerInstance<'_, T>,
    function: &str,
    concurrent: bool,
    why: String,
) -> wasmtime::Result<()> {
    if concurrent {
        return place.func_new_concurrent(function, move |_, _, _, _| {
            let why = why.clone();
            Box::pin(async move { Err(wasmtime::Error::msg(why)) })
        });
    }
    place.func_new(function, move |_, _, _, _| {
        Err(wasmtime::Error::msg(why.clone()))
    })
}
