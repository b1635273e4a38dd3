//! Changes of containerd's configuration that leave everything else as its
//! owner wrote it.

use toml_edit::{Array, DocumentMut, Item, Table, TableLike, Value, value};

use crate::{ANNOTATIONS, HANDLER, RUNTIME_TYPE};

/// What is wrong with a text.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not TOML: where and why.
    Malformed(String),
    /// Something in the way of a table: its key and what it is.
    NotATable(String, &'static str),
    /// A version that is not known.
    Schema(i64),
}

/// The plugin that has the runtimes of pods, in each version of the schema.
fn plugin(schema: i64) -> Result<&'static str, Fault> {
    match schema {
        1 => Ok("cri"),
        2 => Ok("io.containerd.grpc.v1.cri"),
        3 | 4 => Ok("io.containerd.cri.v1.runtime"),
        other => Err(Fault::Schema(other)),
    }
}

/// # Errors
/// When it is not TOML.
pub fn parse(text: &str) -> Result<DocumentMut, Fault> {
    text.parse().map_err(|error: toml_edit::TomlError| {
        // In one line: who hears of it may take no more.
        let message = error.message().replace('\n', ", ");
        let before = error.span().and_then(|span| text.get(..span.start));
        Fault::Malformed(match before {
            Some(before) => {
                let line = before.matches('\n').count() + 1;
                format!("line {line}: {message}")
            }
            None => message,
        })
    })
}

/// The version of the schema that a configuration says it has; one that says
/// nothing has the first.
///
/// # Errors
/// When it is not TOML.
pub fn schema(text: &str) -> Result<i64, Fault> {
    let document = parse(text)?;
    Ok(document
        .get("version")
        .and_then(Item::as_integer)
        .unwrap_or(1))
}

/// The runtime to be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Runtime<'a> {
    /// The shim's path.
    pub shim: &'a str,
    /// Whether the path is to be the type, too: before 1.7 containerd's
    /// Kubernetes plugin does not look at a path of its own.
    pub by_type: bool,
}

/// A configuration with nothing but the runtime.
///
/// # Errors
/// A version that is not known.
pub fn alone(schema: i64, runtime: Runtime<'_>) -> Result<String, Fault> {
    with(&format!("version = {schema}\n"), runtime)
}

/// `text` with the runtime, and everything else as it is.
///
/// # Errors
/// A text that is not TOML, or has something else where the runtimes belong.
pub fn with(text: &str, new: Runtime<'_>) -> Result<String, Fault> {
    let mut document = parse(text)?;
    let path = path(schema(text)?)?;
    let mut at: &mut dyn TableLike = document.as_table_mut();
    let mut key = String::new();
    for name in path {
        if !key.is_empty() {
            key.push('.');
        }
        key += name;
        let item = at.entry(name).or_insert_with(|| {
            // Named by what is in it: it has no line of its own.
            let mut table = Table::new();
            table.set_implicit(true);
            Item::Table(table)
        });
        let found = item.type_name();
        at = item
            .as_table_like_mut()
            .ok_or(Fault::NotATable(key.clone(), found))?;
    }
    let mut runtime = Table::new();
    let kind = if new.by_type { new.shim } else { RUNTIME_TYPE };
    runtime.insert("runtime_type", value(kind));
    runtime.insert("runtime_path", value(new.shim));
    runtime.insert("pod_annotations", value(Array::from_iter([ANNOTATIONS])));
    match at.get_mut(HANDLER) {
        // In its place, with what its owner wrote around and into it.
        Some(item) => {
            let found = item.type_name();
            let old = item
                .as_table_like_mut()
                .ok_or_else(|| Fault::NotATable(format!("{key}.{HANDLER}"), found))?;
            for (name, new) in runtime {
                let same =
                    old.get(&name).and_then(Item::as_value).map(bare) == new.as_value().map(bare);
                if !same {
                    old.insert(&name, new);
                }
            }
        }
        None => {
            let inline = !at.is_empty() && is_inline(at);
            let item = match inline {
                true => Item::Value(Value::InlineTable(runtime.into_inline_table())),
                false => Item::Table(runtime),
            };
            at.insert(HANDLER, item);
        }
    }
    let text = ended_as(text, document.to_string());
    // Some owners' forms cannot take it, such as dotted keys: then say so.
    match parse(&text) {
        Ok(_) => Ok(text),
        Err(_) => Err(Fault::NotATable(
            key,
            "written in a form that cannot be added to",
        )),
    }
}

/// `text` without the runtime, and everything else as it is; also without the
/// tables that are empty then and have no line of their own.
///
/// # Errors
/// A text that is not TOML, or of an unknown version.
pub fn without(text: &str) -> Result<String, Fault> {
    let mut document = parse(text)?;
    let path = path(schema(text)?)?;
    remove(document.as_table_mut(), &path);
    Ok(ended_as(text, document.to_string()))
}

/// `new` with lines that end as those of `old` do.
fn ended_as(old: &str, new: String) -> String {
    match old.contains("\r\n") {
        true => new.replace("\r\n", "\n").replace('\n', "\r\n"),
        false => new,
    }
}

fn remove(table: &mut dyn TableLike, path: &[&str]) {
    let Some((name, rest)) = path.split_first() else {
        table.remove(HANDLER);
        return;
    };
    let Some(below) = table.get_mut(name) else {
        return;
    };
    if let Some(inner) = below.as_table_like_mut() {
        remove(inner, rest);
    }
    let is_ours = below
        .as_table()
        .is_some_and(|table| table.is_empty() && table.is_implicit());
    if is_ours {
        table.remove(name);
    }
}

fn path(schema: i64) -> Result<[&'static str; 4], Fault> {
    Ok(["plugins", plugin(schema)?, "containerd", "runtimes"])
}

fn bare(value: &Value) -> String {
    value.clone().decorated("", "").to_string()
}

fn is_inline(table: &dyn TableLike) -> bool {
    table.iter().all(|(_, item)| item.is_inline_table())
}

#[cfg(test)]
#[path = "edit_tests.rs"]
mod tests;
