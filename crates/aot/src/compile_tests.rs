use super::*;

/// The smallest module, with one empty function.
const MODULE: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x0a\x04\x01\x02\0\x0b";

/// The smallest component.
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

fn refused(bytes: &[u8]) -> String {
    compile(bytes).expect_err("refused").to_string()
}

#[test]
fn modules_and_components_are_compiled() {
    for (bytes, kind) in [
        (MODULE, Precompiled::Module),
        (COMPONENT, Precompiled::Component),
    ] {
        let code = compile(bytes).expect("valid");
        assert_eq!(Engine::detect_precompiled(&code), Some(kind));
    }
}

/// A component that exports an empty instance by each of these names.
fn exporting(names: &[&str]) -> Vec<u8> {
    let mut bytes = COMPONENT.to_vec();
    bytes.extend([5, 3, 1, 1, 0]);
    let mut exports = vec![names.len() as u8];
    for name in names {
        exports.extend([0, name.len() as u8]);
        exports.extend(name.as_bytes());
        exports.extend([5, 0, 0]);
    }
    bytes.extend([11, exports.len() as u8]);
    bytes.extend(exports);
    bytes
}

#[test]
fn code_is_of_the_kind_that_its_exports_ask_for() {
    use Calls::{Asynchronous, Synchronous};
    for (names, kind) in [
        (&[][..], Kind::new(Synchronous, true)),
        (&["wasi:cli/run@0.2.6"], Kind::new(Synchronous, false)),
        (&["wasi:cli/run@0.3.0"], Kind::new(Asynchronous, false)),
        (
            &["wasi:http/incoming-handler@0.2.0"],
            Kind::new(Synchronous, true),
        ),
        (&["wasi:http/handler@0.3.0"], Kind::new(Asynchronous, true)),
        (
            &["wasi:cli/run@0.2.0", "wasi:http/handler@0.3.0"],
            Kind::new(Asynchronous, false),
        ),
        // This one is no command: whoever runs it as a server needs its thread back.
        (
            &["wasi:cli/run@1.0.0", "wasi:http/incoming-handler@0.2.0"],
            Kind::new(Synchronous, true),
        ),
    ] {
        let code = compile(&exporting(names)).expect("valid");
        let fits = |kind: &Kind| {
            let engine = engine(*kind).expect("engine");
            // SAFETY: compiled a moment ago.
            unsafe { wasmtime::component::Component::deserialize(&engine, &code) }.is_ok()
        };
        let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(fits).collect();
        assert_eq!(kinds, [kind], "{names:?}");
    }
}

#[test]
fn precompiled_code_is_refused() {
    let code = compile(MODULE).expect("valid");
    assert!(refused(&code).contains("precompiled core module"));
    let code = compile(COMPONENT).expect("valid");
    assert!(refused(&code).contains("precompiled component"));
}

#[test]
fn what_is_not_webassembly_is_refused_as_what_it_is() {
    for (bytes, reason) in [
        (&b""[..], "empty"),
        (b"(module)", "WebAssembly text"),
        (b"  \n;; comment\n(module)", "WebAssembly text"),
        (b"\x7fELF\x02\x01", "not WebAssembly"),
        (b"#!/bin/sh\n", "not WebAssembly"),
        (b"\0as", "truncated"),
        (b"\0asm", "truncated"),
        (b"\0asm\x63\0\0\0", "invalid"),
        (b"\0asm\x01\0\0\0\x01\x01\xff", "invalid"),
    ] {
        let error = refused(bytes);
        assert!(error.contains(reason), "{bytes:?}: {error}");
    }
}

#[test]
fn a_program_cut_off_anywhere_within_a_section_is_truncated() {
    // Sections of the module end here: cut there it is another valid module,
    // or an invalid one.
    let ends = [8, 14, 18, MODULE.len()];
    for length in (0..MODULE.len())
        .filter(|length| !ends.contains(length))
        .skip(1)
    {
        let error = refused(&MODULE[..length]);
        assert!(error.contains("truncated"), "{length}: {error}");
    }
    let mut nested = COMPONENT.to_vec();
    nested.extend([1, MODULE.len() as u8]);
    nested.extend(MODULE);
    compile(&nested).expect("a component with a module");
    for length in 9..nested.len() {
        let error = refused(&nested[..length]);
        assert!(error.contains("truncated"), "{length}: {error}");
    }
}
