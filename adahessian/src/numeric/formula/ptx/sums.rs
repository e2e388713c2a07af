//! Sums over the entries of a block, over its threads, and over blocks.

use super::{Key, Writing};
use crate::numeric::traced::Register;
use crate::numeric::traced::assembly::{F32, Type, literal};
use std::fmt::{self, Write};

impl Writing<'_> {
    /// The sums of this block's entries, in the registers of their instructions.
    pub(super) fn stage(&mut self, stage: usize) -> fmt::Result {
        let of = self.key.of;
        let sums = self.sums(stage);
        let start = |largest: bool| match largest {
            true => literal(f64::NEG_INFINITY, of),
            false => literal(0.0, of),
        };
        let mut summed = Vec::new();
        for (number, register) in sums.iter().enumerate() {
            let largest = self.is_largest(*register);
            writeln!(
                self.to,
                "  mov.{} %sum{number}, {};",
                of.name,
                start(largest)
            )?;
            let operand = self.key.shape.instructions[*register].operands().next();
            summed.push((operand.unwrap_or_default(), combine(largest, of)));
        }
        let operands: Vec<Register> = summed.iter().map(|(operand, _)| *operand).collect();
        self.entries(&format!("stage{stage}"), &operands, |to| {
            for (number, (operand, combine)) in summed.iter().enumerate() {
                writeln!(to, "  {combine} %sum{number}, %sum{number}, %x{operand};")?;
            }
            Ok(())
        })?;
        self.tree(stage, &sums)
    }

    /// The threads' sums become the group's: half of the lanes add the other half's, and so on.
    fn tree(&mut self, stage: usize, sums: &[Register]) -> fmt::Result {
        let Key { of, threads, .. } = *self.key;
        let Type { name, bytes } = of;
        let columns = self.groups_of_block();
        let mut half = self.lanes() / 2;
        let all: Vec<bool> = sums.iter().map(|sum| self.is_largest(*sum)).collect();
        let to = &mut self.to;
        writeln!(to, "  mov.u32 %mine, tree;")?;
        writeln!(to, "  mad.lo.u32 %mine, %thread, {bytes}, %mine;")?;
        for sum in 0..all.len() {
            let place = sum * threads * bytes;
            writeln!(to, "  st.shared.{name} [%mine+{place}], %sum{sum};")?;
        }
        while half > 0 {
            writeln!(to, "  bar.sync 0;")?;
            writeln!(to, "  setp.ge.u32 %q, %lane, {half};")?;
            writeln!(to, "  @%q bra stage{stage}_above{half};")?;
            for (sum, largest) in all.iter().enumerate() {
                let place = sum * threads * bytes;
                let other = place + half * columns * bytes;
                writeln!(to, "  ld.shared.{name} %other, [%mine+{other}];")?;
                writeln!(
                    to,
                    "  {} %sum{sum}, %sum{sum}, %other;",
                    combine(*largest, of)
                )?;
                writeln!(to, "  st.shared.{name} [%mine+{place}], %sum{sum};")?;
            }
            writeln!(to, "stage{stage}_above{half}:")?;
            half /= 2;
        }
        writeln!(to, "  bar.sync 0;")?;
        writeln!(to, "  mov.u32 %mine, tree;")?;
        writeln!(to, "  mad.lo.u32 %mine, %column, {bytes}, %mine;")?;
        for (sum, register) in sums.iter().enumerate() {
            let place = sum * threads * bytes;
            writeln!(to, "  ld.shared.{name} %x{register}, [%mine+{place}];")?;
        }
        // The next stage writes there.
        writeln!(to, "  bar.sync 0;")
    }

    /// Leaves this block's part of a stage's sums.
    pub(super) fn left(&mut self, stage: usize) -> fmt::Result {
        let Type { name, bytes } = self.key.of;
        writeln!(self.to, "  setp.ne.u32 %q, %lane, 0;\n  @%q ret;")?;
        writeln!(self.to, "  @!%here ret;")?;
        for register in self.sums(stage) {
            let number = self.number_of_sum(register);
            let to = &mut self.to;
            writeln!(to, "  mad.lo.u32 %number, %parts, {number}, %block;")?;
            writeln!(to, "  mad.lo.u32 %number, %number, %groups, %group;")?;
            writeln!(to, "  mad.wide.u32 %at, %number, {bytes}, %sums;")?;
            writeln!(to, "  st.global.{name} [%at], %x{register};")?;
        }
        Ok(())
    }

    /// A stage's sums from those of all parts.
    pub(super) fn collected(&mut self, stage: usize) -> fmt::Result {
        let of = self.key.of;
        let Type { name, bytes } = of;
        for register in self.sums(stage) {
            let number = self.number_of_sum(register);
            let combine = combine(self.is_largest(register), of);
            let to = &mut self.to;
            writeln!(to, "  mul.lo.u32 %number, %parts, {number};")?;
            writeln!(to, "  mad.lo.u32 %number, %number, %groups, %safe;")?;
            writeln!(to, "  mad.wide.u32 %at, %number, {bytes}, %sums;")?;
            writeln!(to, "  ld.global.{name} %x{register}, [%at];")?;
            writeln!(to, "  mov.u32 %i, 1;")?;
            writeln!(to, "sum{register}:\n  setp.ge.u32 %done, %i, %parts;")?;
            writeln!(to, "  @%done bra sum{register}_behind;")?;
            writeln!(to, "  mad.wide.u32 %at, %groups, {bytes}, %at;")?;
            writeln!(to, "  ld.global.{name} %other, [%at];")?;
            writeln!(to, "  {combine} %x{register}, %x{register}, %other;")?;
            writeln!(to, "  add.u32 %i, %i, 1;")?;
            writeln!(to, "  bra sum{register};\nsum{register}_behind:")?;
        }
        Ok(())
    }
}

/// What two sums become one by.
fn combine(largest: bool, of: Type) -> &'static str {
    match (largest, of == F32) {
        (false, true) => "add.rn.f32",
        (false, false) => "add.rn.f64",
        (true, true) => "max.f32",
        (true, false) => "max.f64",
    }
}
