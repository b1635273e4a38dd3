//! Memory for instances, reserved once and used again and again.

use wasmtime::ResourcesRequired;
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};
use wisp_capability::HttpServer;

use crate::world::{Wasi, World};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// The most one memory can have. Reserving it whole lets the compiled code do
/// without checks; it is what the compiler assumes.
const MEMORY: usize = 4 << 30;

/// How many entries a table may grow to, unless it begins with more.
const TABLE: usize = 20_000;

/// How much of what an instance has written is put back by copying, and stays
/// for the next one; what exceeds it is given back to the kernel.
const KEEP_MEMORY: usize = MIB;
const KEEP_TABLE: usize = 64 * KIB;

/// How many places that were used stay ready to be used again.
const WARM: u32 = 16;

/// No bound of ours: how large the host's side of an instance may be follows
/// from the program's size, which is bounded.
const INSTANCE: usize = 64 * MIB;

/// Stacks for one instance of 0.3, where each call in progress may have one: for
/// the calls of one request, and one for each further request.
const STACKS: u32 = 4;

/// The most instances that wait to be used again.
const SPARE: u32 = 128;

/// How many instances may wait to be used again, beside those that are in use.
pub fn spare(server: &HttpServer) -> u32 {
    match server.reuse {
        1 => 0,
        _ => server.max_requests.min(SPARE),
    }
}

/// Lets `config` allocate from a pool for as many instances of a program that
/// `needs` this as `server` may run at once. Does not change what code is
/// compatible: that is a matter of reservations, which stay as they are.
pub fn reserve(config: &mut Config, needs: &ResourcesRequired, server: &HttpServer, world: World) {
    let count = server.max_requests.saturating_add(spare(server));
    let memories = needs.num_memories.max(1);
    let tables = needs.num_tables.max(1);
    let stacks = match world {
        World::Http(Wasi::P3) => STACKS.saturating_add(server.concurrency - 1),
        _ => 1,
    };
    let initial_table = needs.max_initial_table_size.unwrap_or_default();
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(count)
        .total_core_instances(u32::MAX)
        .max_component_instance_size(INSTANCE)
        .max_core_instance_size(INSTANCE)
        .max_memory_size(MEMORY)
        // One more for the heap of collected objects, which is a memory too.
        .total_memories(count.saturating_mul(memories.saturating_add(1)))
        .max_memories_per_module(memories)
        .total_gc_heaps(count)
        .total_tables(count.saturating_mul(tables))
        .max_tables_per_module(tables)
        .table_elements(
            usize::try_from(initial_table)
                .unwrap_or(usize::MAX)
                .max(TABLE),
        )
        .total_stacks(count.saturating_mul(stacks))
        .max_unused_warm_slots(WARM)
        .pagemap_scan(Enabled::Auto)
        .linear_memory_keep_resident(KEEP_MEMORY)
        .table_keep_resident(KEEP_TABLE);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
}
