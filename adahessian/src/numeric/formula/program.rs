//! A formula's instructions, which of them are needed for what, and after how many sums.

use crate::numeric::traced::{Instruction, Register, Symbol, Tape};

/// Where a result is known, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Level {
    /// Whether every entry has one of its own; else its group has one.
    pub of_entry: bool,
    /// How many sums have to be there first, one after the other.
    pub sums: usize,
}

/// What a kernel is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    pub instructions: Vec<Instruction>,
    pub results: Vec<Register>,
}

/// A formula, and the constants of one call.
pub(super) struct Program {
    pub shape: Shape,
    pub constants: Vec<f64>,
    #[cfg_attr(not(feature = "cuda"), allow(dead_code))]
    pub incomplete: bool,
}

impl Program {
    pub fn new(tape: Tape, results: &[Symbol]) -> Self {
        Self {
            shape: Shape {
                instructions: tape.instructions,
                results: results.iter().map(|result| result.register).collect(),
            },
            constants: tape.constants,
            incomplete: tape.incomplete,
        }
    }
}

impl Shape {
    /// The level of every instruction.
    pub fn levels(&self) -> Vec<Level> {
        let mut levels: Vec<Level> = Vec::with_capacity(self.instructions.len());
        for instruction in &self.instructions {
            let mut level = Level {
                of_entry: matches!(
                    instruction,
                    Instruction::Entry(_)
                        | Instruction::Place(_)
                        | Instruction::Position
                        | Instruction::Spread(_)
                ),
                sums: 0,
            };
            for operand in instruction.operands() {
                let operand = levels[operand];
                level.of_entry |= operand.of_entry;
                level.sums = level.sums.max(operand.sums);
            }
            if is_over_group(*instruction) {
                level = Level {
                    of_entry: false,
                    sums: level.sums + 1,
                };
            }
            levels.push(level);
        }
        levels
    }

    /// Which instructions these results need, those before `stops` included or not.
    pub fn needed(
        &self,
        results: impl IntoIterator<Item = Register>,
        stops: impl Fn(Register) -> bool,
    ) -> Vec<bool> {
        let mut needed = vec![false; self.instructions.len()];
        for result in results {
            needed[result] = true;
        }
        for register in (0..needed.len()).rev() {
            if needed[register] && !stops(register) {
                for operand in self.instructions[register].operands() {
                    needed[operand] = true;
                }
            }
        }
        needed
    }
}

/// Whether it is a sum, or the like.
pub(super) fn is_over_group(instruction: Instruction) -> bool {
    matches!(instruction, Instruction::Sum(_) | Instruction::Largest(_))
}
