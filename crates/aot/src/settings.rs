use wasmtime::{Collector, Config, ModuleVersionStrategy, WasmBacktraceDetails};

/// The exact version of Wasmtime. Its own check of precompiled code stops at
/// the major version, but a patch release may change what code expects.
pub const WASMTIME_VERSION: &str = "48.0.8";

/// A setting that changes the code, with its name for the key.
struct Switch(&'static str, fn(&mut Config, bool) -> &mut Config, bool);

/// What guests may use and how their code is made. The compiler and the
/// runtime must agree on each, so each is said here rather than left to a
/// default that could depend on how a crate was built.
const SWITCHES: [Switch; 19] = [
    Switch("component-model", Config::wasm_component_model, true),
    Switch("bulk-memory", Config::wasm_bulk_memory, true),
    Switch("multi-value", Config::wasm_multi_value, true),
    Switch("multi-memory", Config::wasm_multi_memory, true),
    Switch("memory64", Config::wasm_memory64, true),
    Switch("simd", Config::wasm_simd, true),
    Switch("relaxed-simd", Config::wasm_relaxed_simd, true),
    Switch("reference-types", Config::wasm_reference_types, true),
    Switch(
        "function-references",
        Config::wasm_function_references,
        true,
    ),
    Switch("gc", Config::wasm_gc, true),
    Switch("exceptions", Config::wasm_exceptions, true),
    Switch("tail-call", Config::wasm_tail_call, true),
    Switch("extended-const", Config::wasm_extended_const, true),
    Switch("wide-arithmetic", Config::wasm_wide_arithmetic, false),
    Switch("custom-page-sizes", Config::wasm_custom_page_sizes, false),
    Switch("stack-switching", Config::wasm_stack_switching, false),
    Switch("threads", Config::wasm_threads, true),
    // Maps code to Wasm offsets, for the backtrace.
    Switch("address-map", Config::generate_address_map, true),
    Switch("unwind-info", Config::native_unwind_info, true),
];

/// How a program calls and is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calls {
    /// One call after the other. Nobody has to note which of several tasks a
    /// call belongs to, which takes longer than many a call itself.
    Synchronous,
    /// Also asynchronously, as the component model has it since WASI 0.3.
    Asynchronous,
}

/// What code is made for, of which each kind wants an engine of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    pub calls: Calls,
    /// Whether the thread can be taken back from it: at each loop and call it looks
    /// whether its time is over. Servers have many guests on a thread; a command
    /// has its process, which signals end, and computes faster without.
    pub interruptible: bool,
}

impl Kind {
    /// That of core modules, which are commands.
    pub const MODULE: Self = Self::new(Calls::Synchronous, false);

    /// All, with what most programs are first.
    pub const ALL: [Self; 4] = [
        Self::MODULE,
        Self::new(Calls::Synchronous, true),
        Self::new(Calls::Asynchronous, false),
        Self::new(Calls::Asynchronous, true),
    ];

    pub const fn new(calls: Calls, interruptible: bool) -> Self {
        Self {
            calls,
            interruptible,
        }
    }
}

/// The engine's settings, the same for the process that compiles and for the
/// one that runs. What does not change the code (the allocator) may be added.
///
/// # Errors
/// None with the settings as they are; Wasmtime reserves it.
pub fn settings(kind: Kind) -> wasmtime::Result<Config> {
    let mut config = Config::new();
    let asynchronous = kind.calls == Calls::Asynchronous;
    config
        .epoch_interruption(kind.interruptible)
        .wasm_component_model_async(asynchronous)
        .concurrency_support(asynchronous);
    for Switch(_, apply, on) in &SWITCHES {
        apply(&mut config, *on);
    }
    config.collector(Collector::DeferredReferenceCounting);
    // Function names come from the name section. Lines would need the DWARF
    // sections in every compiled file, and the default asks the environment.
    config.wasm_backtrace_details(WasmBacktraceDetails::Disable);
    config.module_version(ModuleVersionStrategy::Custom(format!(
        "wisp, wasmtime {WASMTIME_VERSION}"
    )))?;
    Ok(config)
}

/// The settings as text, for the key.
pub(crate) fn describe() -> String {
    let mut text =
        String::from("collector=drc calls=synchronous-if-possible epoch-interruption=servers");
    for Switch(name, _, on) in &SWITCHES {
        text.push_str(&format!(" {name}={on}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_one_that_is_linked() {
        let lock =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock"))
                .expect("Cargo.lock");
        let version = lock
            .split("[[package]]")
            .find(|package| package.contains("name = \"wasmtime\"\n"))
            .and_then(|package| package.split("version = \"").nth(1))
            .and_then(|rest| rest.split('"').next());
        assert_eq!(version, Some(WASMTIME_VERSION));
    }

    #[test]
    fn an_engine_takes_the_settings() {
        for kind in Kind::ALL {
            wasmtime::Engine::new(&settings(kind).expect("settings")).expect("engine");
        }
    }
}
