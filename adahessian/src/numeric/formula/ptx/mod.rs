//! A formula's kernel as text in PTX.
//!
//! A block of threads has one group, or 32 groups that lie side by side where each is a column; and of each group a
//! part of its entries. Where a group is one block's, sums and what is computed from them are stages of one kernel.
//! Where it is divided among several, each stage is a launch: every block leaves its part of the sums, and the
//! next launch's blocks add the parts up, all in the same order.
//!
//! Threads add up their entries, and then each other's sums in a tree, in an order that nothing changes.

mod entries;
mod sums;

use super::program::{Level, Shape, is_over_group};
use crate::numeric::traced::assembly::{ENTRY, HEAD, Type, arithmetic, scratch};
use crate::numeric::traced::{Instruction, Register};
use std::fmt::{self, Write};

/// Groups of a block where they are columns.
pub(super) const COLUMNS: usize = 32;

/// Where an entry lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Index {
    /// Of a row: outer is 1.
    Row,
    /// Of a column: inner is 1. A block has [`COLUMNS`] groups.
    Column,
    /// Of both.
    Both,
}

/// What a launch does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Part {
    /// All stages and the results; a block has a whole group.
    All,
    /// The sums of one stage, from 1 on, over parts of groups.
    Stage(usize),
    /// The results, from all stages' sums.
    Results,
}

/// A kernel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub shape: Shape,
    /// Entries, shared numbers, places, constants.
    pub given: [usize; 4],
    pub of: Type,
    pub index: Index,
    /// Of a block; a power of two.
    pub threads: usize,
    pub part: Part,
}

/// A text that is being written.
struct Writing<'a> {
    key: &'a Key,
    levels: Vec<Level>,
    needed: Vec<bool>,
    to: String,
}

/// The kernel. Parameters: groups, inner entries, entries of a group, entries of a part, parts of a group; the
/// addresses of the parts' sums, of what is given and of the results; the constants.
pub(super) fn kernel(key: &Key) -> String {
    let levels = key.shape.levels();
    let needed = key
        .shape
        .needed(key.shape.results.iter().copied(), |_| false);
    let mut writing = Writing {
        key,
        levels,
        needed,
        to: String::from(HEAD),
    };
    // Writing to a string does not fail.
    let _ = writing.kernel();
    writing.to
}

impl Writing<'_> {
    fn groups_of_block(&self) -> usize {
        match self.key.index {
            Index::Column => COLUMNS,
            Index::Row | Index::Both => 1,
        }
    }

    /// Threads that share a group.
    fn lanes(&self) -> usize {
        self.key.threads / self.groups_of_block()
    }

    /// The sums of a stage.
    fn sums(&self, stage: usize) -> Vec<Register> {
        let all = self.key.shape.instructions.iter().enumerate();
        let of_stage = all.filter(|(register, instruction)| {
            is_over_group(**instruction)
                && self.needed[*register]
                && self.levels[*register].sums == stage
        });
        of_stage.map(|(register, _)| register).collect()
    }

    fn stages(&self) -> usize {
        let registers = 0..self.levels.len();
        let needed = registers.filter(|register| self.needed[*register]);
        needed
            .map(|register| self.levels[register].sums)
            .max()
            .unwrap_or(0)
    }

    /// Where a sum stands among all of them.
    fn number_of_sum(&self, register: Register) -> usize {
        let before = (1..=self.stages()).flat_map(|stage| self.sums(stage));
        before.take_while(|other| *other != register).count()
    }

    fn is_largest(&self, register: Register) -> bool {
        matches!(
            self.key.shape.instructions[register],
            Instruction::Largest(_)
        )
    }

    fn kernel(&mut self) -> fmt::Result {
        self.parameters()?;
        self.registers()?;
        self.place()?;
        self.given()?;
        let stages = self.stages();
        match self.key.part {
            Part::All => {
                self.of_group(0)?;
                for stage in 1..=stages {
                    self.stage(stage)?;
                    self.of_group(stage)?;
                }
                self.results()?;
            }
            Part::Stage(stage) => {
                self.of_group(0)?;
                for before in 1..stage {
                    self.collected(before)?;
                    self.of_group(before)?;
                }
                self.stage(stage)?;
                self.left(stage)?;
            }
            Part::Results => {
                self.of_group(0)?;
                for stage in 1..=stages {
                    self.collected(stage)?;
                    self.of_group(stage)?;
                }
                self.results()?;
            }
        }
        writeln!(self.to, "  ret;\n}}")
    }

    fn parameters(&mut self) -> fmt::Result {
        let [entries, shared, places, constants] = self.key.given;
        let name = self.key.of.name;
        writeln!(self.to, ".visible .entry {ENTRY}(")?;
        for size in ["groups", "inner", "count", "part", "parts"] {
            writeln!(self.to, "  .param .u32 {size},")?;
        }
        write!(self.to, "  .param .u64 sums")?;
        let results = self.key.shape.results.len();
        for (kind, count) in [("e", entries), ("s", shared), ("p", places), ("r", results)] {
            for number in 0..count {
                write!(self.to, ",\n  .param .u64 {kind}{number}")?;
            }
        }
        for number in 0..constants {
            write!(self.to, ",\n  .param .{name} c{number}")?;
        }
        // As many registers as a block of this many threads may have, and no more.
        writeln!(self.to, "\n)\n.maxntid {}, 1, 1\n{{", self.key.threads)
    }

    fn registers(&mut self) -> fmt::Result {
        let Key { of, threads, .. } = *self.key;
        let [entries, _, places, _] = self.key.given;
        let results = self.key.shape.results.len();
        let count = self.key.shape.instructions.len();
        let most = (1..=self.stages()).map(|stage| self.sums(stage).len());
        let most = most.max().unwrap_or(0).max(1);
        let to = &mut self.to;
        writeln!(to, "  .reg .{} %x<{count}>, %sum<{most}>, %other;", of.name)?;
        scratch(to, of)?;
        writeln!(to, "  .reg .b64 %e<{}>;", entries.max(1))?;
        writeln!(
            to,
            "  .reg .b64 %p<{}>, %r<{}>;",
            places.max(1),
            results.max(1)
        )?;
        writeln!(to, "  .reg .b64 %at, %sums;")?;
        writeln!(
            to,
            "  .reg .b32 %thread, %column, %lane, %group, %safe, %groups, %inner, %count, %part, %parts;"
        )?;
        writeln!(
            to,
            "  .reg .b32 %block, %first, %end, %i, %outer, %place, %number, %mine;"
        )?;
        writeln!(to, "  .reg .pred %here, %done, %q;")?;
        let bytes = most * threads * of.bytes;
        writeln!(to, "  .shared .align 8 .b8 tree[{bytes}];")
    }

    /// This thread's group, and its first entry. A thread without a group has no entries.
    fn place(&mut self) -> fmt::Result {
        let columns = self.groups_of_block();
        let to = &mut self.to;
        for size in ["groups", "inner", "count", "part", "parts"] {
            writeln!(to, "  ld.param.u32 %{size}, [{size}];")?;
        }
        writeln!(to, "  ld.param.u64 %sums, [sums];")?;
        writeln!(to, "  mov.u32 %thread, %tid.x;")?;
        writeln!(to, "  and.b32 %column, %thread, {};", columns - 1)?;
        writeln!(
            to,
            "  shr.u32 %lane, %thread, {};",
            columns.trailing_zeros()
        )?;
        writeln!(to, "  mov.u32 %group, %ctaid.x;")?;
        writeln!(to, "  mad.lo.u32 %group, %group, {columns}, %column;")?;
        writeln!(to, "  setp.lt.u32 %here, %group, %groups;")?;
        writeln!(to, "  selp.b32 %safe, %group, 0, %here;")?;
        writeln!(to, "  mov.u32 %block, %ctaid.y;")?;
        writeln!(to, "  mul.lo.u32 %first, %block, %part;")?;
        writeln!(to, "  sub.u32 %end, %count, %first;")?;
        writeln!(to, "  min.u32 %end, %end, %part;")?;
        writeln!(to, "  add.u32 %end, %end, %first;")?;
        writeln!(to, "  add.u32 %first, %first, %lane;")?;
        writeln!(to, "  selp.b32 %first, %first, %end, %here;")
    }

    /// Addresses, constants, and what the group shares.
    fn given(&mut self) -> fmt::Result {
        let of = self.key.of;
        let [entries, _, places, _] = self.key.given;
        let results = self.key.shape.results.len();
        for (kind, count) in [("e", entries), ("p", places), ("r", results)] {
            for number in 0..count {
                writeln!(self.to, "  ld.param.u64 %{kind}{number}, [{kind}{number}];")?;
            }
        }
        let instructions = self.key.shape.instructions.iter().enumerate();
        for (number, instruction) in instructions.filter(|(number, _)| self.needed[*number]) {
            match instruction {
                Instruction::Constant(k) => {
                    writeln!(self.to, "  ld.param.{} %x{number}, [c{k}];", of.name)?;
                }
                Instruction::Shared(k) => {
                    writeln!(self.to, "  ld.param.u64 %at, [s{k}];")?;
                    writeln!(self.to, "  mad.wide.u32 %at, %safe, {}, %at;", of.bytes)?;
                    writeln!(self.to, "  ld.global.{} %x{number}, [%at];", of.name)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What groups have of their own after so many stages.
    fn of_group(&mut self, stage: usize) -> fmt::Result {
        for (number, instruction) in self.key.shape.instructions.iter().enumerate() {
            let level = self.levels[number];
            if self.needed[number] && !level.of_entry && level.sums == stage {
                arithmetic(&mut self.to, number, *instruction, self.key.of)?;
            }
        }
        Ok(())
    }
}
