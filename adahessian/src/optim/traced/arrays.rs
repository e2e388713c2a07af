//! The arrays that a step's kernel is given.

use super::launch::Work;
use crate::error::Result;
use crate::numeric::cuda::{address, written_address};
use crate::numeric::traced::assembly::Type;
use crate::optim::together::Member;
use crate::second_order::versions;
use candle_core::Tensor;

/// The arrays of members: where they begin, and what keeps them alive till the kernel is asked for.
#[derive(Default)]
pub(super) struct Arrays {
    pub work: Vec<Work>,
    pub kept: Vec<Tensor>,
}

impl Arrays {
    /// θ and the running quantities are written to, g and D are read.
    pub fn of(members: &[Member<'_>], gradients: bool) -> Result<Self> {
        let mut all = Self::default();
        for member in members {
            versions::changed(member.var);
            let mut arrays = vec![written_address(member.var)?];
            if gradients {
                let gradient = member.gradient.contiguous()?;
                arrays.push(address(&gradient)?);
                all.kept.push(gradient);
            }
            for slot in member.slots.tensors() {
                arrays.push(written_address(slot)?);
            }
            all.work.push(Work {
                arrays,
                shared: Vec::new(),
                count: member.var.elem_count(),
            });
        }
        Ok(all)
    }

    /// One array more for each, which lie end to end.
    pub fn push_scratch(&mut self, begin: u64, of: Type) {
        let mut at = begin;
        for work in &mut self.work {
            work.arrays.push(at);
            at += (work.count * of.bytes) as u64;
        }
    }

    /// Marks the use of all that a kernel was asked to read and to write to.
    pub fn used(self, members: &[Member<'_>]) -> Result<()> {
        for tensor in &self.kept {
            address(tensor)?;
        }
        for member in members {
            written_address(member.var)?;
            for slot in member.slots.tensors() {
                written_address(slot)?;
            }
        }
        Ok(())
    }
}
