//! The loop over a thread's entries, and what it writes.

use super::{Index, Key, Writing};
use crate::numeric::traced::assembly::{Type, arithmetic};
use crate::numeric::traced::{Instruction, Register};
use std::fmt::{self, Write};

impl Writing<'_> {
    /// The loop over this thread's entries, with what these results take; their registers hold them at its end.
    pub(super) fn entries(
        &mut self,
        label: &str,
        results: &[Register],
        last: impl FnOnce(&mut String) -> fmt::Result,
    ) -> fmt::Result {
        let Key { of, index, .. } = *self.key;
        let needed = self.key.shape.needed(results.iter().copied(), |register| {
            !self.levels[register].of_entry
        });
        let to = &mut self.to;
        writeln!(to, "  mov.u32 %i, %first;")?;
        writeln!(to, "{label}:\n  setp.ge.u32 %done, %i, %end;")?;
        writeln!(to, "  @%done bra {label}_behind;")?;
        match index {
            Index::Row => {
                writeln!(to, "  mov.u32 %place, %i;")?;
                writeln!(to, "  mad.lo.u32 %number, %group, %inner, %i;")?;
            }
            Index::Column => {
                writeln!(to, "  mov.u32 %place, 0;")?;
                writeln!(to, "  mad.lo.u32 %number, %i, %groups, %group;")?;
            }
            Index::Both => {
                writeln!(to, "  div.u32 %outer, %i, %inner;")?;
                writeln!(to, "  mul.lo.u32 %place, %outer, %inner;")?;
                writeln!(to, "  sub.u32 %place, %i, %place;")?;
                writeln!(to, "  mad.lo.u32 %number, %outer, %groups, %group;")?;
                writeln!(to, "  mad.lo.u32 %number, %number, %inner, %place;")?;
            }
        }
        for (number, instruction) in self.key.shape.instructions.iter().enumerate() {
            if !needed[number] || !self.levels[number].of_entry {
                continue;
            }
            let (from, at) = match *instruction {
                Instruction::Entry(k) => (format!("%e{k}"), "%number"),
                Instruction::Place(k) => (format!("%p{k}"), "%place"),
                Instruction::Position => {
                    writeln!(to, "  cvt.rn.{}.u32 %x{number}, %place;", of.name)?;
                    continue;
                }
                instruction => {
                    arithmetic(to, number, instruction, of)?;
                    continue;
                }
            };
            writeln!(to, "  mad.wide.u32 %at, {at}, {}, {from};", of.bytes)?;
            writeln!(to, "  ld.global.{} %x{number}, [%at];", of.name)?;
        }
        last(to)?;
        let lanes = self.lanes();
        writeln!(self.to, "  add.u32 %i, %i, {lanes};")?;
        writeln!(self.to, "  bra {label};\n{label}_behind:")
    }

    /// Writes what was asked for: of entries in a loop, of groups by the first thread of each.
    pub(super) fn results(&mut self) -> fmt::Result {
        let Type { name, bytes } = self.key.of;
        let all = self.key.shape.results.iter().copied().enumerate();
        let (of_entries, of_groups): (Vec<_>, Vec<_>) =
            all.partition(|(_, register)| self.levels[*register].of_entry);
        if !of_entries.is_empty() {
            let registers: Vec<Register> = of_entries.iter().map(|(_, r)| *r).collect();
            self.entries("results", &registers, |to| {
                for (number, register) in &of_entries {
                    writeln!(to, "  mad.wide.u32 %at, %number, {bytes}, %r{number};")?;
                    writeln!(to, "  st.global.{name} [%at], %x{register};")?;
                }
                Ok(())
            })?;
        }
        if of_groups.is_empty() {
            return Ok(());
        }
        let to = &mut self.to;
        writeln!(to, "  or.b32 %number, %lane, %block;")?;
        writeln!(to, "  setp.ne.u32 %q, %number, 0;\n  @%q ret;")?;
        writeln!(to, "  @!%here ret;")?;
        for (number, register) in &of_groups {
            writeln!(to, "  mad.wide.u32 %at, %group, {bytes}, %r{number};")?;
            writeln!(to, "  st.global.{name} [%at], %x{register};")?;
        }
        Ok(())
    }
}
