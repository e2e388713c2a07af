//! Sums or means of table rows, bag by bag.
//!
//! y = M x for a matrix M that is never made: gx = Mᵀ g, and the derivative of that in g is M v.

use crate::error::Result;
use crate::ops::engine::{Buffer, Fused, Handle, Inner, Real, apply};
use crate::ops::text::{Linear, Map};
use crate::ops::wrong;
use candle_core::{Device, Tensor};
use rayon::prelude::*;

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
        if starts.len() != batch * tables + 1 || !rising || ends != (Some(&0), Some(rows.len())) {
            return wrong(
                "starts of bags",
                format!(
                    "{} that rise from 0 to {}, the number of rows",
                    batch * tables + 1,
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
}

/// The bags' vectors [batch, tables, m] from rows [U, m], on the device of the rows. Rows of a
/// [`crate::SparseTable`] are on the CPU, and so are the vectors; [`super::interaction()`] takes them from
/// there.
///
/// # Errors
/// [`crate::Error::Setting`] for another shape, or a bag with a row that is not there; candle's errors.
pub fn bags(x: &Handle, bags: Bags) -> Result<Handle> {
    let &[rows, width] = x.dims() else {
        return wrong("rows of bags", "[rows, width]", format!("{:?}", x.dims()));
    };
    if let Some(row) = bags.rows.iter().find(|&&row| row as usize >= rows) {
        let expected = format!(
            "0 to {}, the rows that were given: places among them, not ids of a table",
            rows.saturating_sub(1)
        );
        return wrong("row in a bag", expected, row.to_string());
    }
    let [batch, tables] = bags.shape;
    let shape = [batch, tables, width];
    match x.inner() {
        Inner::Composed(x) => Ok(Handle::composed(&composed(x, &bags)?.reshape(&shape)?)),
        Inner::F32(x) => Ok(fused(x, bags, &shape)?.into()),
        Inner::F64(x) => Ok(fused(x, bags, &shape)?.into()),
    }
}

fn fused<T: Real>(x: &Fused<T>, bags: Bags, shape: &[usize; 3]) -> Result<Fused<T>> {
    let width = shape[2];
    apply(Map(Pool { bags, width }), &[x], shape)
}

/// By picking rows and adding them to their bags.
fn composed(x: &Tensor, bags: &Bags) -> Result<Tensor> {
    let (_, width) = x.dims2()?;
    let (mut owners, mut weights) = (Vec::new(), Vec::new());
    for bag in 0..bags.count() {
        let (rows, weight) = bags.bag::<f64>(bag);
        owners.extend(rows.iter().map(|_| bag as u32));
        weights.extend(rows.iter().map(|_| weight));
    }
    let here = |t: Tensor| t.to_device(x.device());
    let count = owners.len();
    let zeros = Tensor::zeros((bags.count(), width), x.dtype(), x.device())?;
    if count == 0 {
        return Ok(zeros);
    }
    let rows = here(Tensor::from_vec(bags.rows.clone(), count, &Device::Cpu)?)?;
    let owners = here(Tensor::from_vec(owners, count, &Device::Cpu)?)?;
    let weights = here(Tensor::from_vec(weights, (count, 1), &Device::Cpu)?)?;
    let picked = x.index_select(&rows, 0)?;
    let picked = picked.broadcast_mul(&weights.to_dtype(x.dtype())?)?;
    Ok(zeros.index_add(&owners, &picked, 0)?)
}

struct Pool {
    bags: Bags,
    width: usize,
}

impl Linear for Pool {
    const NAME: &'static str = "bags";

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
            false => {
                let bags = y.par_chunks_exact_mut(self.width).enumerate();
                bags.with_min_len(512).for_each(pool);
            }
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
}
