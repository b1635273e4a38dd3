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
