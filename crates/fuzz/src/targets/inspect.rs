//! What `wisp inspect` reads. Its modules are a program's, not a library's, and
//! are compiled here once more.

use wisp_capability::Policy;

#[path = "../../../cli/src/inspect"]
#[allow(dead_code, reason = "of a program, a part")]
mod inspected {
    pub mod against;
    pub mod needs;
    pub mod program;
    pub mod suggest;
}
use inspected::program::Program;
use inspected::{against, suggest};

/// A program.
pub fn wasm(data: &[u8]) {
    if let Ok(program) = Program::read(data) {
        assert!(!program.kind.is_empty());
        let yaml = suggest::yaml(&suggest::suggest(&program));
        // What is to be pasted is read as it was meant.
        let read = against::parse(&yaml);
        assert!(
            yaml.is_empty() || read.is_ok_and(|pods| pods.len() == 1),
            "{yaml}"
        );
    }
}

/// Kubernetes objects, or annotations.
pub fn pods(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let program = Program::read(EMPTY).expect("a module");
    for pod in against::parse(text).unwrap_or_default() {
        let verdict = against::compare(&program, &pod, &Policy::default());
        // What cannot be granted is told.
        let annotated = pod.annotations.keys().any(|key| key == "io.wisp.unknown");
        assert!(!annotated || !verdict.missing.is_empty());
    }
}

/// A module with nothing in it.
const EMPTY: &[u8] = b"\0asm\x01\0\0\0";
