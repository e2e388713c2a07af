//! Tensors end to end, for devices on which a step is bound by how many operations are asked for.

use crate::error::Result;
use candle_core::Tensor;

/// Entries that lie end to end at once: enough that operations are few, and so few that the memory beside the model's own
/// does not grow with it.
pub(crate) const AT_ONCE: usize = 1 << 24;

/// Whether a tensor's numbers are in the CPU's memory, where one pass over them does all that there is to do.
pub(crate) fn in_memory(x: &Tensor) -> bool {
    x.device().is_cpu()
}

/// All entries, one tensor's behind the other's.
pub(crate) fn end_to_end<'a>(all: impl Iterator<Item = &'a Tensor>) -> Result<Tensor> {
    let all = all.map(Tensor::flatten_all);
    let all = all.collect::<candle_core::Result<Vec<_>>>()?;
    Ok(Tensor::cat(&all, 0)?)
}

/// Portions of at most [`AT_ONCE`] entries, in order; of more where a single tensor has them.
pub(crate) fn portions(mut all: &[Tensor]) -> Vec<&[Tensor]> {
    let mut portions = Vec::new();
    while !all.is_empty() {
        let mut entries = 0;
        let fits = |x: &Tensor| {
            entries += x.elem_count();
            entries <= AT_ONCE
        };
        let count = all.iter().map(fits).take_while(|fits| *fits).count();
        let (portion, rest) = all.split_at(count.max(1));
        portions.push(portion);
        all = rest;
    }
    portions
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn portions_are_whole_and_in_order() -> Result<()> {
        let one = Tensor::zeros(1, DType::F32, &Device::Cpu)?;
        let of = |entries: usize| one.broadcast_as(entries); // no memory
        let all = [3, AT_ONCE - 3, 1, AT_ONCE + 1, 2, 2];
        let all = all
            .into_iter()
            .map(of)
            .collect::<candle_core::Result<Vec<_>>>()?;
        let sizes: Vec<usize> = portions(&all).iter().map(|portion| portion.len()).collect();
        assert_eq!(sizes, [2, 1, 1, 2]);
        assert!(portions(&[]).is_empty());
        Ok(())
    }
}
