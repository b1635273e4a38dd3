//! Programs that run once.

use std::sync::Arc;
use std::time::Instant;

use wasmtime::{Engine, InstancePre, Store};
use wasmtime_wasi::{p2, p3};

use crate::event_loop::event_loop;
use crate::exit;
use crate::guest::{Guest, ModuleGuest};
use crate::memory::Budget;
use crate::prepare::Program;
use crate::setup::{Setup, Surroundings};
use crate::signals::install_command_signals;

/// How a guest ended: `Err(())` is its own report of a failure.
type Outcome = wasmtime::Result<Result<(), ()>>;

/// Runs `program` to its end and gives the exit code.
pub fn run(engine: &Engine, program: Program, setup: Setup) -> i32 {
    let begun = Instant::now();
    match start(engine, program, setup) {
        Ok((outcome, budget)) => exit::code(outcome, &budget, begun),
        Err(()) => exit::NOT_STARTED,
    }
}

fn start(engine: &Engine, program: Program, setup: Setup) -> Result<(Outcome, Arc<Budget>), ()> {
    let Setup {
        grant,
        preopens,
        memory_limit,
        ledger,
        config,
        ready,
        ..
    } = setup;
    let prepared = || {
        install_command_signals().map_err(|error| format!("signal handlers: {error}"))?;
        let surroundings = Surroundings::new(grant, preopens, memory_limit, ledger, config)?;
        let runtime = event_loop().map_err(|error| format!("event loop: {error}"))?;
        Ok((surroundings, runtime))
    };
    let (surroundings, runtime) = match prepared() {
        Ok(prepared) => prepared,
        Err(reason) => {
            ready(Err(reason));
            return Err(());
        }
    };
    let outcome = match program {
        Program::Module(pre) => {
            let store = ModuleGuest::store(engine, &surroundings);
            ready(Ok(()));
            runtime.block_on(module(store, pre))
        }
        Program::Command2(pre) => {
            let store = Guest::store(engine, &surroundings);
            ready(Ok(()));
            runtime.block_on(command2(store, pre))
        }
        Program::Command3(pre) => {
            let store = Guest::store(engine, &surroundings);
            ready(Ok(()));
            runtime.block_on(command3(store, pre))
        }
        Program::Http(_) => {
            ready(Err("an HTTP component is not a command".into()));
            return Err(());
        }
    };
    // A lookup that the guest did not wait for must not hold up the exit.
    runtime.shutdown_background();
    Ok((outcome, surroundings.budget))
}

async fn module(mut store: Store<ModuleGuest>, pre: InstancePre<ModuleGuest>) -> Outcome {
    let instance = pre.instantiate_async(&mut store).await?;
    let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
    start.call_async(&mut store, ()).await.map(Ok)
}

async fn command2(mut store: Store<Guest>, pre: p2::bindings::CommandPre<Guest>) -> Outcome {
    let command = pre.instantiate_async(&mut store).await?;
    command.wasi_cli_run().call_run(&mut store).await
}

async fn command3(mut store: Store<Guest>, pre: p3::bindings::CommandPre<Guest>) -> Outcome {
    let command = pre.instantiate_async(&mut store).await?;
    store
        .run_concurrent(async |store| command.wasi_cli_run().call_run(store).await)
        .await?
}
