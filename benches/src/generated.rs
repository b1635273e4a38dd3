//! Programs of a chosen size, the same for the same seed: a core module for WASI
//! preview 1 with as many functions of mixed arithmetic, loads, stores, branches
//! and calls as are needed. It runs one of them and ends.

use wasm_encoder::{
    BlockType, CodeSection, ExportKind, ExportSection, Function, FunctionSection, Instruction,
    MemArg, MemorySection, MemoryType, Module, TypeSection, ValType,
};

/// Arithmetic between two calls or branches of a function.
const STEPS: u32 = 40;

/// A module of about `size` bytes.
pub fn program(size: usize, seed: u64) -> Vec<u8> {
    let mut numbers = Numbers(seed | 1);
    let mut types = TypeSection::new();
    types.ty().function([], []);
    types
        .ty()
        .function([ValType::I32, ValType::I32], [ValType::I32]);
    let mut functions = FunctionSection::new();
    let mut code = CodeSection::new();

    // Function 0 is `_start`.
    functions.function(0);
    let mut start = Function::new([]);
    start
        .instruction(&Instruction::I32Const(7))
        .instruction(&Instruction::I32Const(11))
        .instruction(&Instruction::Call(1))
        .instruction(&Instruction::Drop)
        .instruction(&Instruction::End);
    code.function(&start);

    let mut made = 1;
    while made == 1 || code.byte_len() < size {
        functions.function(1);
        code.function(&function(made, &mut numbers));
        made += 1;
    }

    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: 1,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    let mut exports = ExportSection::new();
    exports.export("_start", ExportKind::Func, 0);
    exports.export("memory", ExportKind::Memory, 0);

    let mut module = Module::new();
    module
        .section(&types)
        .section(&functions)
        .section(&memories)
        .section(&exports)
        .section(&code);
    module.finish()
}

/// Function `index`, which calls only functions before it: nothing recurs.
fn function(index: u32, numbers: &mut Numbers) -> Function {
    // Locals: two parameters, then an accumulator.
    let mut function = Function::new([(1, ValType::I32)]);
    for block in 0..4 {
        for _ in 0..STEPS {
            step(&mut function, numbers);
        }
        if block % 2 == 0 {
            branch(&mut function, numbers);
        } else if index > 2 {
            let callee = 1 + numbers.below(index - 1);
            call(&mut function, callee);
        }
    }
    function
        .instruction(&Instruction::LocalGet(2))
        .instruction(&Instruction::End);
    function
}

/// accumulator = accumulator OP operand
fn step(function: &mut Function, numbers: &mut Numbers) {
    function.instruction(&Instruction::LocalGet(2));
    match numbers.below(4) {
        0 => {
            function.instruction(&Instruction::LocalGet(0));
        }
        1 => {
            function.instruction(&Instruction::LocalGet(1));
        }
        2 => {
            function.instruction(&Instruction::I32Const(numbers.next() as i32));
        }
        _ => {
            // Within the one page: an address of at most 0xfffc.
            function
                .instruction(&Instruction::LocalGet(2))
                .instruction(&Instruction::I32Const(0xfffc))
                .instruction(&Instruction::I32And)
                .instruction(&Instruction::I32Load(place()));
        }
    }
    function.instruction(&match numbers.below(6) {
        0 => Instruction::I32Add,
        1 => Instruction::I32Sub,
        2 => Instruction::I32Mul,
        3 => Instruction::I32Xor,
        4 => Instruction::I32Rotl,
        _ => Instruction::I32Or,
    });
    function.instruction(&Instruction::LocalSet(2));
}

/// if accumulator < number { memory[number] = accumulator }
fn branch(function: &mut Function, numbers: &mut Numbers) {
    function
        .instruction(&Instruction::LocalGet(2))
        .instruction(&Instruction::I32Const(numbers.next() as i32))
        .instruction(&Instruction::I32LtS)
        .instruction(&Instruction::If(BlockType::Empty))
        .instruction(&Instruction::I32Const((numbers.below(0x4000) * 4) as i32))
        .instruction(&Instruction::LocalGet(2))
        .instruction(&Instruction::I32Store(place()))
        .instruction(&Instruction::End);
}

/// Calls only when the accumulator is a number that it practically never is, so
/// that a run is short however large the program.
fn call(function: &mut Function, callee: u32) {
    function
        .instruction(&Instruction::LocalGet(2))
        .instruction(&Instruction::I32Const(0x5eed))
        .instruction(&Instruction::I32Eq)
        .instruction(&Instruction::If(BlockType::Empty))
        .instruction(&Instruction::LocalGet(0))
        .instruction(&Instruction::LocalGet(2))
        .instruction(&Instruction::Call(callee))
        .instruction(&Instruction::LocalSet(2))
        .instruction(&Instruction::End);
}

fn place() -> MemArg {
    MemArg {
        offset: 0,
        align: 2,
        memory_index: 0,
    }
}

/// xorshift64: the same numbers everywhere.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u32) -> u32 {
        (self.next() >> 16) as u32 % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_program_and_another_one_does_not() {
        assert_eq!(program(50_000, 1), program(50_000, 1));
        assert_ne!(program(50_000, 1), program(50_000, 3));
    }

    #[test]
    fn a_program_is_as_large_as_asked() {
        for size in [1_000, 50_000, 2_000_000] {
            let found = program(size, 1).len();
            assert!(found >= size, "{found}");
            assert!(found < size + size / 20 + 2_000, "{found}");
        }
    }
}
