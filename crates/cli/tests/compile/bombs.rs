//! Programs made to do harm end within the limits, with a sentence.

use std::io::{self, Cursor, Read};
use std::process::{Command, Stdio};

use wisp_aot::Digest;

use crate::node::Node;
use crate::programs;

/// Tight limits: what one of these programs can cost the machine.
fn small() -> Node {
    Node::new(|compiler| {
        compiler.memory_mib = 256;
        compiler.timeout_seconds = 60;
        compiler.threads = Some(2);
    })
}

#[test]
fn what_would_fill_the_memory_is_refused_by_that_setting() {
    let node = small();
    for (what, program) in [
        ("blocks", programs::nested_blocks(2_500_000)),
        ("loops", programs::nested_loops(1_000_000)),
        ("conditions", programs::nested_ifs(1_200_000)),
        ("an expression", programs::deep_expression(2_000_000)),
        ("types", programs::types(1_000_000)),
        ("imports", programs::imports(1_000_000)),
        ("nested components", programs::nested_components(1_000_000)),
        ("doubling components", programs::doubling_components(60)),
    ] {
        println!("{what}: {} bytes", program.len());
        node.refused(
            &program,
            &["more than 256 MiB of memory", "compiler.memory_mib"],
        );
    }
}

#[test]
fn what_the_parser_has_limits_for_is_refused_with_them() {
    let node = small();
    for (program, reason) in [
        (programs::huge_function(10), "size"),
        (programs::types(1_000_001), "types"),
        (programs::imports(1_000_001), "imports"),
        (programs::memories(5_000), "memories"),
        (programs::tables(5_000), "tables"),
        (programs::nested_types(500_000), "nesting"),
    ] {
        node.refused(&program, &["invalid WebAssembly", reason]);
    }
}

#[test]
fn what_is_only_large_is_compiled() {
    let node = small();
    for (what, program) in [
        ("blocks", programs::nested_blocks(100_000)),
        ("conditions", programs::nested_ifs(10_000)),
        ("an expression", programs::deep_expression(100_000)),
        ("memories", programs::memories(100)),
        ("tables", programs::tables(100)),
        ("nested components", programs::nested_components(1_000)),
        ("nested types", programs::nested_types(90)),
        ("doubling components", programs::doubling_components(8)),
    ] {
        if let Err(error) = node.compile(&program) {
            panic!("{what}: {error}");
        }
    }
}

#[test]
fn a_small_program_that_takes_for_ever_is_refused_by_that_setting() {
    let node = Node::new(|compiler| compiler.timeout_seconds = 1);
    node.refused(
        &programs::component(&programs::nested_loops(10_000)),
        &["within 1 s", "compiler.timeout_seconds"],
    );
}

#[test]
fn a_program_that_takes_more_memory_is_refused_by_that_setting() {
    let node = Node::new(|compiler| {
        compiler.memory_mib = 64;
        compiler.threads = Some(2);
    });
    node.refused(
        &programs::huge_function(7),
        &["more than 64 MiB of memory", "compiler.memory_mib"],
    );
}

#[test]
fn a_program_that_takes_more_time_is_refused_by_that_setting() {
    let node = Node::new(|compiler| {
        compiler.timeout_seconds = 1;
        compiler.threads = Some(1);
    });
    node.refused(
        &programs::functions(32),
        &["within 1 s", "compiler.timeout_seconds"],
    );
}

#[test]
fn processor_time_is_bounded_where_nobody_looks_at_the_clock() {
    let node = Node::new(|_| {});
    let mut child = Command::new(node.wisp())
        .args(["compile", "--cpu-seconds=1", "--threads=1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start");
    let mut stdin = child.stdin.take().expect("stdin");
    let fed = io::copy(&mut Cursor::new(programs::functions(32)), &mut stdin);
    drop(stdin);
    fed.expect("fed");
    let output = child.wait_with_output().expect("wait");
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains("more than 1 s of processor time"), "{words}");
    node.nothing_runs();
}

#[test]
fn two_hundred_megabytes_of_code_are_not_even_taken() {
    let node = Node::new(|_| {});
    node.refused(
        &programs::functions(200),
        &["larger than 64 MiB", "compiler.max_program_mib"],
    );
}

#[test]
fn two_hundred_megabytes_of_code_end_in_time_where_they_are_allowed() {
    let node = Node::new(|compiler| {
        compiler.max_program_mib = 400;
        compiler.timeout_seconds = 3;
    });
    node.refused(
        &programs::functions(200),
        &["within 3 s", "compiler.timeout_seconds"],
    );
}

#[test]
fn a_program_without_end_is_cut_off() {
    let node = Node::new(|compiler| compiler.max_program_mib = 8);
    let digest = Digest::of(&mut Cursor::new("")).expect("bytes");
    for mut program in [
        Box::new(io::repeat(0)) as Box<dyn Read>,
        Box::new(Cursor::new(programs::functions(4)).chain(io::repeat(0))),
    ] {
        let error = node.feed(&digest, &mut *program).expect_err("refused");
        let text = error.to_string();
        assert!(text.contains("larger than 8 MiB"), "{text}");
        assert!(text.contains("compiler.max_program_mib"), "{text}");
        node.nothing_runs();
    }
    // Also without anyone who counts.
    let output = Command::new(node.wisp())
        .args(["compile", "--max-program-mib=8"])
        .stdin(std::fs::File::open("/dev/zero").expect("zeros"))
        .output()
        .expect("run");
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains("larger than 8 MiB"), "{words}");
}

#[test]
fn code_that_grows_too_large_is_refused_by_that_setting() {
    let node = Node::new(|compiler| compiler.max_code_mib = 1);
    node.refused(
        &programs::functions(3),
        &["larger than 1 MiB", "compiler.max_code_mib"],
    );
}

#[test]
fn data_beyond_the_limit_is_refused_and_within_is_compiled() {
    let node = Node::new(|compiler| compiler.max_program_mib = 16);
    node.refused(&programs::data(17), &["larger than 16 MiB"]);
    node.compile(&programs::data(4)).expect("compiled");
    // Data far apart is not the space between.
    small().compile(&programs::sparse_data()).expect("compiled");
}

#[test]
fn garbage_is_refused_as_such() {
    let node = small();
    for seed in 0..8 {
        let mut noise = programs::noise(100_000, seed);
        node.refused(&noise, &["not WebAssembly"]);
        noise[..8].copy_from_slice(b"\0asm\x01\0\0\0");
        node.refused(&noise, &["WebAssembly"]);
        noise[..8].copy_from_slice(b"\0asm\x0d\0\x01\0");
        node.refused(&noise, &["WebAssembly"]);
    }
}

#[test]
fn a_truncated_program_is_refused_wherever_it_is_cut() {
    let node = small();
    let program = programs::functions(1);
    node.refused(b"", &["empty"]);
    for part in 1..12 {
        let cut = &program[..program.len() * part / 12];
        node.refused(cut, &["truncated"]);
    }
}
