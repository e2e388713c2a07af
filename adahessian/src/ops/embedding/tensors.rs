//! The gradient of a table in candle's operations, for a GPU.
//!
//! candle's `index_add` gives each column to one thread there, which walks through all rows: as many steps in a row
//! as there are ids, however wide the device is. Here the rows of each id are added up in groups of at most eight,
//! and those sums again, until one is left of each: gathers and sums of neighbours, which a GPU does all at once, in
//! an order that the ids alone decide.

use crate::error::Result;
use candle_core::{Device, Tensor};

/// Rows that are added up at a time.
const GROUP: usize = 8;
/// So few are given to `index_add`.
const FEW: usize = 256;

/// The table [entries, D] whose row number i is the sum of those of `rows` [N, D] whose id is i.
pub(super) fn sum_by_id(rows: &Tensor, ids: &[usize], entries: usize) -> Result<Tensor> {
    let width = rows.dim(1)?;
    if ids.len() <= FEW {
        let table = Tensor::zeros((entries, width), rows.dtype(), rows.device())?;
        return Ok(table.index_add(&places(ids.iter().copied(), rows.device())?, rows, 0)?);
    }
    grouped(rows, ids, entries)
}

fn grouped(rows: &Tensor, ids: &[usize], entries: usize) -> Result<Tensor> {
    let (width, device) = (rows.dim(1)?, rows.device());
    // Behind the last row, for places where there is none.
    let nothing = Tensor::zeros((1, width), rows.dtype(), device)?;
    let (mut rows, mut ids) = (rows.clone(), ids.to_vec());
    loop {
        let Level { groups, size } = Level::of(&ids);
        if size == 1 {
            break;
        }
        let missing = ids.len();
        let place = |group: &Vec<usize>, i: usize| group.get(i).copied().unwrap_or(missing);
        let all = groups.iter();
        let all = all.flat_map(|group| (0..size).map(move |i| place(group, i)));
        let from = Tensor::cat(&[&rows, &nothing], 0)?;
        let gathered = from.index_select(&places(all, device)?, 0)?;
        rows = gathered.reshape((groups.len(), size, width))?.sum(1)?;
        ids = groups.iter().map(|group| ids[group[0]]).collect();
    }
    let mut of_entry = vec![ids.len(); entries];
    for (row, &id) in ids.iter().enumerate() {
        of_entry[id] = row;
    }
    let from = Tensor::cat(&[&rows, &nothing], 0)?;
    Ok(from.index_select(&places(of_entry.into_iter(), device)?, 0)?)
}

fn places(places: impl Iterator<Item = usize>, device: &Device) -> Result<Tensor> {
    let places: Vec<u32> = places.map(|place| place as u32).collect();
    let count = places.len();
    Ok(Tensor::from_vec(places, count, device)?)
}

/// Rows of one id each, in groups of at most [`GROUP`], and the size of the largest.
struct Level {
    groups: Vec<Vec<usize>>,
    size: usize,
}

impl Level {
    fn of(ids: &[usize]) -> Self {
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_by_key(|&row| ids[row]); // stable: in their order within an id
        let same = order.chunk_by(|&a, &b| ids[a] == ids[b]);
        let groups = same.flat_map(|same| same.chunks(GROUP).map(<[usize]>::to_vec));
        let groups: Vec<_> = groups.collect();
        Self {
            size: groups.iter().map(Vec::len).max().unwrap_or(0),
            groups,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_in_groups() -> Result<()> {
        for (count, entries) in [(1, 1), (5, 3), (40, 2), (600, 1), (700, 13), (300, 1000)] {
            let ids: Vec<usize> = (0..count).map(|i| i * i % 7 * 31 % entries).collect();
            let numbers: Vec<f64> = (0..2 * count).map(|i| (i % 11) as f64 - 4.0).collect();
            let rows = Tensor::from_vec(numbers, (count, 2), &Device::Cpu)?;
            let table = Tensor::zeros((entries, 2), rows.dtype(), rows.device())?;
            let one_by_one = places(ids.iter().copied(), rows.device())?;
            let expected = table.index_add(&one_by_one, &rows, 0)?.to_vec2::<f64>()?;
            let got = grouped(&rows, &ids, entries)?.to_vec2::<f64>()?;
            assert_eq!(got, expected, "{count} rows of {entries}");
        }
        Ok(())
    }
}
