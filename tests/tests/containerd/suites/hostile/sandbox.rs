//! A sandbox that is broken: native code in a guest's place, in its container and
//! its process, with all that stands behind the first wall.

use super::super::refused::image_of;
use super::super::{Case, cases as all};
use super::{SECRET, to_end};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;
use wasm_encoder::{
    CodeSection, ConstExpr, ExportKind, ExportSection, Function, FunctionSection, GlobalSection,
    GlobalType, Module, TypeSection, ValType,
};
use wisp_tests::{Test, command, paths};

pub fn cases() -> Vec<Case> {
    all(
        "hostile sandbox",
        &[
            ("native code in a guest's place reaches nothing", denied),
            (
                "native code in a guest's place is ended for what only it does",
                ended,
            ),
        ],
    )
}

/// A program whose start has far more code than the intruder.
fn program() -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([], []);
    let mut functions = FunctionSection::new();
    functions.function(0);
    let mut globals = GlobalSection::new();
    let kind = GlobalType {
        val_type: ValType::I64,
        mutable: true,
        shared: false,
    };
    globals.global(kind, &ConstExpr::i64_const(1));
    let mut exports = ExportSection::new();
    exports.export("_start", ExportKind::Func, 0);
    let mut start = Function::new([]);
    let mut body = start.instructions();
    body.global_get(0);
    for step in 0..1200_i64 {
        body.i64_const(step.wrapping_mul(0x1234_5678_9abc_def1) | 1 << 62)
            .i64_xor()
            .i64_const(7)
            .i64_rotl();
    }
    body.global_set(0).end();
    let mut code = CodeSection::new();
    code.function(&start);
    let mut module = Module::new();
    module
        .section(&types)
        .section(&functions)
        .section(&globals)
        .section(&exports)
        .section(&code);
    module.finish()
}

fn run(command: &mut Command, input: Vec<u8>) -> Result<Vec<u8>> {
    let ended = command::run(command, input, Duration::from_secs(60))?;
    ensure!(ended.code == 0, "{command:?}: {}", ended.err());
    Ok(ended.stdout)
}

/// The instructions of `tests/intruder.c`.
fn intruder(test: &Test<'_>, attempt: u32) -> Result<Vec<u8>> {
    let secret = test.file("secret", SECRET)?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644))?;
    let quoted = |path: &std::path::Path| format!("{:?}", path.display().to_string());
    let output = test.dir().join(format!("intruder-{attempt}"));
    let sources = paths::repository().join("tests");
    let mut cc = Command::new("cc");
    cc.arg(format!("-DATTEMPT={attempt}"))
        .arg(format!("-DSECRET={}", quoted(&secret)))
        .arg(format!("-DSOCKET={}", quoted(&test.node.socket())))
        .args(["-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-nostdlib"])
        .args([
            "-ffreestanding",
            "-fno-stack-protector",
            "-fcf-protection=none",
        ])
        .args(["-fno-jump-tables", "-fno-tree-loop-distribute-patterns"])
        .args(["-mno-sse", "-static", "-Wl,--build-id=none"])
        .arg("-Wl,--oformat=binary")
        .arg(format!("-Wl,-T,{}", sources.join("intruder.ld").display()))
        .arg(sources.join("intruder.c"))
        .arg("-o")
        .arg(&output);
    run(&mut cc, Vec::new())?;
    Ok(fs::read(output)?)
}

/// Where in compiled code the first function is, and how long it is.
fn place(compiled: &std::path::Path) -> Result<(usize, usize)> {
    let mut readelf = Command::new("readelf");
    let told = run(readelf.arg("-SsW").arg(compiled), Vec::new())?;
    let told = String::from_utf8_lossy(&told);
    let hex = |text: &str| usize::from_str_radix(text, 16);
    let words = |line: &str| -> Vec<String> {
        let line = line.replace(['[', ']'], " ");
        line.split_whitespace().map(str::to_owned).collect()
    };
    let text = told
        .lines()
        .map(words)
        .find(|w| w.get(1).is_some_and(|w| w == ".text"));
    let text = text.context("no .text")?;
    let function = told.lines().map(words).find(|w| {
        w.get(3).is_some_and(|kind| kind == "FUNC")
            && w.iter().any(|w| w.starts_with("::_start") || w == "wasm")
    });
    let function = function.with_context(|| format!("no function in {told}"))?;
    let section = (hex(&text[3])?, hex(&text[4])?);
    let at = hex(&function[1])? - section.0 + section.1;
    Ok((at, function[2].parse()?))
}

/// Runs native code in the place of a program's; answers its exit code and what
/// it said.
fn intrude(test: &Test<'_>, attempt: u32) -> Result<(i32, String)> {
    let wasm = program();
    let mut compile = Command::new(paths::wisp());
    let mut code = run(compile.arg("compile"), wasm.clone())?;
    let compiled = test.file(&format!("code-{attempt}"), &code)?;
    let (at, room) = place(&compiled)?;
    let native = intruder(test, attempt)?;
    ensure!(native.len() <= room, "{} into {room}", native.len());
    code[at..at + native.len()].copy_from_slice(&native);
    fs::write(&compiled, &code)?;
    // A compiler of the node's is believed.
    let script = format!(
        "#!/bin/sh\ncat >/dev/null\nexec cat {}\n",
        compiled.display()
    );
    let compiler = test.file(&format!("compiler-{attempt}"), script)?;
    fs::set_permissions(&compiler, fs::Permissions::from_mode(0o755))?;
    let cache = test.dir().join(format!("cache-{attempt}"));
    let config = format!("[cache]\ndir = {cache:?}\n[compiler]\npath = {compiler:?}\n");
    let image = image_of(test, "intruded", "app.wasm", 0o755, &wasm)?;
    let ended = to_end(test.run(&image).config(&config)?)?;
    let out = ended.out();
    ensure!(
        out.starts_with("intruder: in\nintruder: its image is there\n"),
        "it did not run: {ended:?}"
    );
    ensure!(!out.contains("REACHED"), "{attempt}: {out}");
    Ok((ended.code, out))
}

fn denied(test: &Test<'_>) -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        return Ok(());
    }
    let (code, out) = intrude(test, 0)?;
    ensure!(
        code == 0 && out.ends_with("intruder: out\n"),
        "{code}: {out}"
    );
    for what in [
        "a host's file ",
        "a raw socket ",
        "a local socket ",
        "a child ",
        "new code ",
    ] {
        ensure!(
            out.contains(&format!("denied {what}")),
            "no {what:?} in {out}"
        );
    }
    Ok(())
}

fn ended(test: &Test<'_>) -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        return Ok(());
    }
    for attempt in 1..=12 {
        let (code, out) = intrude(test, attempt)?;
        ensure!(!out.contains("intruder: out"), "{attempt}: {out}");
        // Where the kernel has no 32-bit calls, the last is a fault.
        ensure!(
            code == 159 || (attempt == 11 && code > 128),
            "{attempt}: {code}"
        );
    }
    Ok(())
}
