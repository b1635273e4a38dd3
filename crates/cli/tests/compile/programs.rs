//! Programs made to do harm.

use wasm_encoder::{
    CodeSection, ComponentTypeSection, ConstExpr, DataSection, EntityType, Function,
    FunctionSection, ImportSection, MemorySection, MemoryType, Module, PrimitiveValType, RefType,
    TableSection, TableType, TypeSection, ValType,
};

const MIB: usize = 1 << 20;
/// What opens a component.
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

fn one_type() -> TypeSection {
    let mut types = TypeSection::new();
    types.ty().function([], []);
    types
}

fn memory() -> MemorySection {
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: 1,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    memories
}

/// A module of these functions, each without parameters.
fn module(functions: impl IntoIterator<Item = Function>) -> Vec<u8> {
    let mut declared = FunctionSection::new();
    let mut code = CodeSection::new();
    for function in functions {
        declared.function(0);
        code.function(&function);
    }
    let mut module = Module::new();
    module
        .section(&one_type())
        .section(&declared)
        .section(&memory())
        .section(&code);
    module.finish()
}

/// Arithmetic of about `bytes`, of which nothing can be left out: each step
/// takes the result of the one before and an address of its own.
fn arithmetic(bytes: usize, seed: i32) -> Function {
    let mut function = Function::new([(2, ValType::I32)]);
    let mut code = function.instructions();
    for step in 0..bytes / 21 {
        let step = i32::try_from(step).expect("small");
        code.local_get(0)
            .i32_const((seed ^ step) & 0x3f)
            .i32_add()
            .local_tee(1)
            .local_get(1)
            .i32_mul()
            .local_set(0);
        code.i32_const(step & 0xfff)
            .local_get(0)
            .i32_store(wasm_encoder::MemArg {
                offset: 0,
                align: 2,
                memory_index: 0,
            });
    }
    code.end();
    function
}

/// One function with millions of instructions.
pub fn huge_function(mib: usize) -> Vec<u8> {
    module([arithmetic(mib * MIB, 1)])
}

/// Ordinary functions, `mib` of them.
pub fn functions(mib: usize) -> Vec<u8> {
    module((0..mib * 256).map(|n| arithmetic(4096, i32::try_from(n).expect("small"))))
}

pub fn nested_blocks(depth: usize) -> Vec<u8> {
    let mut function = Function::new([]);
    function.raw([0x02, 0x40].repeat(depth));
    function.raw([0x0b].repeat(depth + 1));
    module([function])
}

pub fn nested_loops(depth: usize) -> Vec<u8> {
    let mut function = Function::new([(1, ValType::I32)]);
    function.raw([0x03, 0x40].repeat(depth));
    // local.get 0, br_if 0, end
    function.raw([0x20, 0, 0x0d, 0, 0x0b].repeat(depth));
    function.raw([0x0b]);
    module([function])
}

/// Conditions in conditions, each with another way out.
pub fn nested_ifs(depth: usize) -> Vec<u8> {
    let mut function = Function::new([(1, ValType::I32)]);
    // local.get 0, if
    function.raw([0x20, 0, 0x04, 0x40].repeat(depth));
    // else, end
    function.raw([0x05, 0x0b].repeat(depth));
    function.raw([0x0b]);
    module([function])
}

/// An expression that is that deep: every value waits for the last.
pub fn deep_expression(depth: usize) -> Vec<u8> {
    let mut function = Function::new([(1, ValType::I32)]);
    function.raw([0x20, 0].repeat(depth));
    function.raw([0x6a].repeat(depth - 1));
    // drop, end
    function.raw([0x1a, 0x0b]);
    module([function])
}

pub fn types(count: u32) -> Vec<u8> {
    let mut types = TypeSection::new();
    for n in 0..count {
        let parameter = |bit: u32| {
            if n >> bit & 1 == 0 {
                ValType::I32
            } else {
                ValType::I64
            }
        };
        types.ty().function((0..24).map(parameter), []);
    }
    let mut module = Module::new();
    module.section(&types);
    module.finish()
}

pub fn imports(count: u32) -> Vec<u8> {
    let mut imports = ImportSection::new();
    for n in 0..count {
        imports.import("m", &n.to_string(), EntityType::Function(0));
    }
    let mut module = Module::new();
    module.section(&one_type()).section(&imports);
    module.finish()
}

pub fn memories(count: u32) -> Vec<u8> {
    let mut memories = MemorySection::new();
    for _ in 0..count {
        memories.memory(MemoryType {
            minimum: 65_536,
            maximum: None,
            memory64: false,
            shared: false,
            page_size_log2: None,
        });
    }
    let mut module = Module::new();
    module.section(&memories);
    module.finish()
}

pub fn tables(count: u32) -> Vec<u8> {
    let mut tables = TableSection::new();
    for _ in 0..count {
        tables.table(TableType {
            element_type: RefType::FUNCREF,
            table64: false,
            minimum: 10_000_000,
            maximum: None,
            shared: false,
        });
    }
    let mut module = Module::new();
    module.section(&tables);
    module.finish()
}

/// Data of `mib`, in segments of one MiB each.
pub fn data(mib: usize) -> Vec<u8> {
    let mut data = DataSection::new();
    for n in 0..mib {
        let offset = i32::try_from(n * MIB).expect("small");
        data.active(0, &ConstExpr::i32_const(offset), [7].repeat(MIB));
    }
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: u64::try_from(mib * 16).expect("small"),
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    let mut module = Module::new();
    module.section(&memories).section(&data);
    module.finish()
}

/// Two bytes of data at the two ends of a memory of 4 GiB.
pub fn sparse_data() -> Vec<u8> {
    let mut data = DataSection::new();
    data.active(0, &ConstExpr::i32_const(0), *b"x");
    data.active(0, &ConstExpr::i32_const(-1), *b"x");
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: 65_536,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    let mut module = Module::new();
    module.section(&memories).section(&data);
    module.finish()
}

/// Components in components.
pub fn nested_components(depth: usize) -> Vec<u8> {
    // From the inside: what stands before the part that is nested next.
    let mut before = vec![COMPONENT.to_vec()];
    let mut length = COMPONENT.len();
    for _ in 0..depth {
        let mut section = COMPONENT.to_vec();
        // Section 4 is a component.
        section.push(4);
        leb128(length, &mut section);
        length += section.len();
        before.push(section);
    }
    before.into_iter().rev().flatten().collect()
}

/// A component with this module, and no command: its code can be interrupted,
/// which takes the compiler longer.
pub fn component(module: &[u8]) -> Vec<u8> {
    let mut component = COMPONENT.to_vec();
    // Section 1 is a core module.
    component.push(1);
    leb128(module.len(), &mut component);
    component.extend(module);
    component
}

fn leb128(mut value: usize, sink: &mut Vec<u8>) {
    loop {
        let low = u8::try_from(value & 0x7f).expect("seven bits");
        value >>= 7;
        if value == 0 {
            sink.push(low);
            return;
        }
        sink.push(low | 0x80);
    }
}

/// Lists of lists of lists.
pub fn nested_types(depth: u32) -> Vec<u8> {
    use wasm_encoder::ComponentValType::{Primitive, Type};
    let mut types = ComponentTypeSection::new();
    types.defined_type().list(Primitive(PrimitiveValType::U8));
    for n in 0..depth {
        types.defined_type().list(Type(n));
    }
    let mut component = wasm_encoder::Component::new();
    component.section(&types);
    component.finish()
}

/// Components that each use the one before twice: small, and 2ⁿ to expand.
pub fn doubling_components(count: u32) -> Vec<u8> {
    use wasm_encoder::{Component, ComponentInstanceSection, NestedComponentSection};
    let mut component = Component::new();
    component.section(&NestedComponentSection(&Component::new()));
    for n in 0..count {
        // A component that instantiates its outer's component `n` twice.
        let mut inner = Component::new();
        let mut aliases = wasm_encoder::ComponentAliasSection::new();
        aliases.alias(wasm_encoder::Alias::Outer {
            kind: wasm_encoder::ComponentOuterAliasKind::Component,
            count: 1,
            index: n,
        });
        inner.section(&aliases);
        let mut instances = ComponentInstanceSection::new();
        for _ in 0..2 {
            let none: [(&str, wasm_encoder::ComponentExportKind, u32); 0] = [];
            instances.instantiate(0, none);
        }
        inner.section(&instances);
        component.section(&NestedComponentSection(&inner));
    }
    let mut instances = ComponentInstanceSection::new();
    let none: [(&str, wasm_encoder::ComponentExportKind, u32); 0] = [];
    instances.instantiate(count, none);
    component.section(&instances);
    component.finish()
}

/// The same bytes each time, like nothing in particular.
pub fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    std::iter::repeat_with(|| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        seed.to_be_bytes()[0]
    })
    .take(length)
    .collect()
}
