//! Sums or means of table rows, bag by bag.
//!
//! y = M x for a matrix M that is never made: gx = Mᵀ g, and the derivative of that in g is M v.

use super::wrong;
use crate::engine::{Handle, LinearMap, Operand, linear_map};
use crate::error::Result;
use crate::numeric::listed::{Lists, Weights};
use crate::numeric::parallel;
use crate::numeric::{Buffer, Real, widened};
use candle_core::{Device, Tensor};

/// Bags that a thread does at a time.
const BAGS: usize = 512;

/// How a bag of rows becomes one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooling {
    /// Their sum; an empty bag is zero.
    #[default]
    Sum,
    /// Their mean; an empty bag is zero.
    Mean,
}

/// Which rows of a table each bag holds: `tables` bags for every one of `batch` samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bags {
    rows: Vec<u32>,
    starts: Vec<u32>,
    shape: [usize; 2],
    pooling: Pooling,
}

impl Bags {
    /// Bag number b·`tables` + t holds `rows[starts[b·tables + t]..starts[b·tables + t + 1]]`, so that
    /// `starts` has one entry more than there are bags, the last one being the number of rows.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] for starts that do not fit.
    pub fn new(
        rows: Vec<u32>,
        starts: Vec<u32>,
        [batch, tables]: [usize; 2],
        pooling: Pooling,
    ) -> Result<Self> {
        let rising = starts.windows(2).all(|pair| pair[0] <= pair[1]);
        let ends = (starts.first(), starts.last().map(|&end| end as usize));
        let count = batch.saturating_mul(tables).saturating_add(1);
        if starts.len() != count || !rising || ends != (Some(&0), Some(rows.len())) {
            return wrong(
                "starts of bags",
                format!(
                    "{count} that rise from 0 to {}, the number of rows",
                    rows.len()
                ),
                format!("{} from {:?} to {:?}", starts.len(), ends.0, ends.1),
            );
        }
        Ok(Self {
            rows,
            starts,
            shape: [batch, tables],
            pooling,
        })
    }

    /// One row a bag: `rows[b·tables + t]`.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] if there are not batch x tables rows.
    pub fn single(rows: Vec<u32>, shape: [usize; 2]) -> Result<Self> {
        let starts = (0..=rows.len() as u32).collect();
        Self::new(rows, starts, shape, Pooling::Sum)
    }

    /// The rows of a bag, and the weight of each.
    #[inline(always)]
    fn bag<T: Real>(&self, bag: usize) -> (&[u32], T) {
        let rows = &self.rows[self.starts[bag] as usize..self.starts[bag + 1] as usize];
        let weight = match self.pooling {
            Pooling::Sum => T::ONE,
            Pooling::Mean => T::from_f64(1.0 / rows.len().max(1) as f64),
        };
        (rows, weight)
    }

    fn count(&self) -> usize {
        self.starts.len() - 1
    }

    /// The bag of each of `rows`.
    fn owners(&self) -> impl Iterator<Item = usize> + Clone + '_ {
        let bags = self.starts.windows(2).enumerate();
        bags.flat_map(|(bag, ends)| (ends[0]..ends[1]).map(move |_| bag))
    }

    /// What each of `rows` counts in its bag.
    fn weights(&self) -> Weights {
        match self.pooling {
            Pooling::Sum => Weights::All(1.0),
            Pooling::Mean => {
                let weights = self.owners().map(|bag| {
                    let (_, weight) = self.bag::<f64>(bag);
                    weight
                });
                Weights::Each(weights.collect())
            }
        }
    }
}

/// The bags' vectors [batch, tables, m] from rows [U, m], on the device of the rows. Rows of a
/// [`crate::sparse::SparseTable`] are where the table is, and so are the vectors; [`super::interaction()`] takes them
/// from there.
///
/// # Errors
/// [`crate::Error::Setting`] for another shape, or a bag with a row that is not there; candle's errors.
pub fn bags<X: Operand>(x: &X, bags: Bags) -> Result<X> {
    X::of(on(x, bags)?)
}

fn on(x: &dyn Operand, bags: Bags) -> Result<Handle> {
    let width = x.dims().last().copied().unwrap_or(0);
    linear_map(Pool { bags, width }, &[x])
}

struct Pool {
    bags: Bags,
    /// Numbers of a row.
    width: usize,
}

impl LinearMap for Pool {
    fn name(&self) -> &'static str {
        "bags"
    }

    fn shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let &[rows, width] = inputs[0] else {
            let got = format!("{:?}", inputs[0]);
            return wrong("rows of bags", "[rows, width]", got);
        };
        if let Some(row) = self.bags.rows.iter().find(|&&row| row as usize >= rows) {
            let expected = format!(
                "0 to {}, the rows that were given: places among them, not ids of a table",
                rows.saturating_sub(1)
            );
            return wrong("row in a bag", expected, row.to_string());
        }
        let [batch, tables] = self.bags.shape;
        Ok(vec![batch, tables, width])
    }

    fn composed(&self, inputs: &[Tensor]) -> Result<Tensor> {
        // Half precision has too few digits for the sums, there and back.
        let (dtype, x) = (inputs[0].dtype(), &widened(&inputs[0])?.contiguous()?);
        let owners = self.bags.owners().map(|bag| bag as u32);
        let owners: Vec<u32> = owners.collect();
        let count = owners.len();
        let zeros = Tensor::zeros((self.bags.count(), self.width), x.dtype(), x.device())?;
        let [batch, tables] = self.bags.shape;
        let shape = (batch, tables, self.width);
        if count == 0 {
            return Ok(zeros.reshape(shape)?.to_dtype(dtype)?);
        }
        let here = |numbers: &[u32]| Tensor::new(numbers, &Device::Cpu)?.to_device(x.device());
        let picked = x.index_select(&here(&self.bags.rows)?, 0)?;
        let picked = match self.bags.weights() {
            Weights::All(_) => picked,
            Weights::Each(weights) => {
                let weights = Tensor::from_vec(weights, (count, 1), &Device::Cpu)?;
                picked.broadcast_mul(&weights.to_dtype(x.dtype())?.to_device(x.device())?)?
            }
        };
        Ok(zeros
            .index_add(&here(&owners)?, &picked, 0)?
            .reshape(shape)?
            .to_dtype(dtype)?)
    }

    fn apply<T: Real>(&self, inputs: &[Option<&[T]>]) -> Buffer<T> {
        let mut y = Buffer::zeroed(self.bags.count() * self.width);
        let Some(x) = inputs[0] else { return y };
        let pool = |(bag, y): (usize, &mut [T])| {
            let (rows, weight) = self.bags.bag::<T>(bag);
            for &row in rows {
                let from = &x[row as usize * self.width..][..self.width];
                y.iter_mut().zip(from).for_each(|(y, &x)| *y += weight * x);
            }
        };
        // Few bags take less time than waking a thread.
        match self.bags.count() <= 4096 {
            true => y.chunks_exact_mut(self.width).enumerate().for_each(pool),
            false => parallel::each(y.chunks_mut(BAGS * self.width), |piece, y| {
                let bags = y.chunks_exact_mut(self.width);
                (piece * BAGS..).zip(bags).for_each(pool);
            }),
        }
        y
    }

    /// In the order of the bags, so that the sums are the same with any number of threads.
    fn transposed<T: Real>(&self, g: &[T], _: usize, length: usize) -> Buffer<T> {
        let mut x = Buffer::zeroed(length);
        for (bag, g) in g.chunks_exact(self.width).enumerate() {
            let (rows, weight) = self.bags.bag::<T>(bag);
            for &row in rows {
                let to = &mut x[row as usize * self.width..][..self.width];
                to.iter_mut().zip(g).for_each(|(to, &g)| *to += weight * g);
            }
        }
        x
    }

    const OF_TENSORS: bool = true;

    fn apply_tensor(&self, inputs: &[Tensor]) -> Result<Tensor> {
        let Bags { rows, starts, .. } = &self.bags;
        let lists = Lists::new(starts.clone(), rows.clone(), self.bags.weights());
        let [batch, tables] = self.bags.shape;
        Ok(lists
            .sums(&inputs[0])?
            .reshape((batch, tables, self.width))?)
    }

    fn transposed_tensor(&self, g: &Tensor, _: usize, shape: &[usize]) -> Result<Tensor> {
        let g = g.contiguous()?.reshape(((), self.width))?;
        let rows = self.bags.rows.iter().map(|row| *row as usize);
        let owners: Vec<u32> = self.bags.owners().map(|bag| bag as u32).collect();
        let lists = Lists::by_id(rows, shape[0], self.bags.weights());
        lists.through(&owners).sums(&g)
    }
}
