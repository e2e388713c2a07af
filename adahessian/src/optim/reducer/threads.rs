//! Participants that are threads of one process.

use super::{Reducer, RowSums, Sums};
use crate::error::{Error, Result};
use candle_core::{DType, Tensor};
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// Threads that train together, one [`ThreadReducer`] each. Sums are added in the order of their ranks,
/// so that results do not depend on which thread comes first.
///
/// ```
/// use adahessian::ThreadGroup;
/// use adahessian::{AdaHessian, Optim};
/// # use candle_core::{Device, Var};
/// let workers = ThreadGroup::new(2).into_iter().enumerate().map(|(rank, reducer)| {
///     std::thread::spawn(move || -> adahessian::Result<Vec<f64>> {
///         let x = Var::new(&[1f64, 2.0], &Device::Cpu)?; // the same model everywhere
///         let mut opt = AdaHessian::builder().build(vec![x.clone()])?;
///         opt.set_reducer(Box::new(reducer));
///         let own = (x.sqr()?.sum_all()? * (1.0 + rank as f64))?; // of its own part of the batch
///         opt.accumulate_loss(&own, 0.5)?;
///         opt.apply()?;
///         Ok(x.to_vec1()?)
///     })
/// });
/// let ends: Vec<_> = workers.collect::<Vec<_>>().into_iter().map(|w| w.join().unwrap()).collect();
/// assert_eq!(ends[0].as_ref().unwrap(), ends[1].as_ref().unwrap());
/// # Ok::<(), adahessian::Error>(())
/// ```
#[derive(Debug)]
pub struct ThreadGroup;

impl ThreadGroup {
    /// One reducer for each of `count` threads, in the order of their ranks.
    #[allow(clippy::new_ret_no_self)]
    pub fn new(count: usize) -> Vec<ThreadReducer> {
        let shared = Arc::new(Shared {
            round: Mutex::new(Round {
                own: (0..count).map(|_| None).collect(),
                ..Round::default()
            }),
            changed: Condvar::new(),
        });
        let reducer = |rank| ThreadReducer {
            rank,
            shared: Arc::clone(&shared),
        };
        (0..count).map(reducer).collect()
    }
}

/// One thread's part of a [`ThreadGroup`]. When it is dropped, the others' reductions fail.
#[derive(Debug)]
pub struct ThreadReducer {
    rank: usize,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    round: Mutex<Round>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Round {
    /// What each rank has brought.
    own: Vec<Option<Sums>>,
    /// The outcome of the last round that was complete, and its number.
    outcome: Option<std::result::Result<Sums, Failure>>,
    number: u64,
    /// The first that is gone.
    gone: Option<usize>,
}

/// An error that every participant gets.
#[derive(Clone, Debug)]
enum Failure {
    Differs {
        name: String,
        expected: String,
        got: String,
    },
    Candle(String),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Differs {
                name,
                expected,
                got,
            } => Error::Variable {
                name,
                expected,
                got,
            },
            Failure::Candle(what) => Error::Candle(candle_core::Error::msg(what)),
        }
    }
}

impl From<candle_core::Error> for Failure {
    fn from(error: candle_core::Error) -> Self {
        Failure::Candle(error.to_string())
    }
}

impl ThreadReducer {
    /// This thread's rank, counted from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    fn round(&self) -> MutexGuard<'_, Round> {
        self.shared.round.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Drop for ThreadReducer {
    fn drop(&mut self) {
        let rank = self.rank;
        self.round().gone.get_or_insert(rank);
        self.shared.changed.notify_all();
    }
}

impl Reducer for ThreadReducer {
    fn reduce(&mut self, own: Sums) -> Result<Sums> {
        let tensors = own.tensors.iter();
        let devices: Vec<_> = tensors
            .map(|(name, t)| (name.clone(), t.device().clone()))
            .collect();
        let rows = own.rows.iter();
        let of_rows: Vec<_> = rows
            .map(|(name, rows)| (name.clone(), rows.gradients.device().clone()))
            .collect();
        arrived(&own)?;
        let mut round = self.round();
        let number = round.number;
        round.own[self.rank] = Some(own);
        if round.own.iter().all(Option::is_some) {
            let all: Vec<_> = round.own.iter_mut().filter_map(Option::take).collect();
            round.outcome = Some(added(all));
            round.number += 1;
            self.shared.changed.notify_all();
        }
        while round.number == number {
            if let Some(rank) = round.gone {
                round.own[self.rank] = None;
                return Err(Error::Participant { rank });
            }
            let woken = self.shared.changed.wait(round);
            round = woken.unwrap_or_else(|e| e.into_inner());
        }
        // The next round cannot end before this thread has brought its sums: the outcome is this one's.
        let Some(outcome) = round.outcome.clone() else {
            return Err(Error::Participant { rank: self.rank });
        };
        drop(round);
        let mut sums = outcome?;
        // Each back to where this participant has it.
        for (name, device) in devices {
            if let Some(tensor) = sums.tensors.get_mut(&name) {
                *tensor = tensor.to_device(&device)?;
            }
        }
        for (name, device) in of_rows {
            if let Some(rows) = sums.rows.get_mut(&name)
                && !rows.rows.is_empty()
            {
                rows.gradients = rows.gradients.to_device(&device)?;
            }
        }
        Ok(sums)
    }
}

type Added<T> = std::result::Result<T, Failure>;

/// Waits until a GPU has done what these sums come from: there every thread may have a stream of its own, and another
/// thread is to read them.
fn arrived(sums: &Sums) -> candle_core::Result<()> {
    let rows = sums.rows.values().map(|rows| &rows.gradients);
    let mut all = sums.tensors.values().chain(rows);
    all.try_for_each(|tensor| tensor.device().synchronize())
}

fn added(all: Vec<Sums>) -> Added<Sums> {
    let mut ranks = all.into_iter();
    let mut sum = ranks.next().unwrap_or_default();
    for (rank, next) in ranks.enumerate() {
        join(&mut sum.tensors, next.tensors, rank + 1, add_tensors)?;
        join(&mut sum.rows, next.rows, rank + 1, add_rows)?;
        let numbers = |_: &str, a: &f64, b: &f64| Ok(a + b);
        join(&mut sum.numbers, next.numbers, rank + 1, numbers)?;
    }
    arrived(&sum)?;
    Ok(sum)
}

fn join<T>(
    sums: &mut BTreeMap<String, T>,
    mut others: BTreeMap<String, T>,
    rank: usize,
    add: impl Fn(&str, &T, &T) -> Added<T>,
) -> Added<()> {
    let differs = |name: &str, has: &str, lacks: usize| Failure::Differs {
        name: name.into(),
        expected: "the same sums in all participants".into(),
        got: format!("one that {has} has and participant {lacks} has not"),
    };
    for (name, sum) in sums.iter_mut() {
        match others.remove(name) {
            Some(other) => *sum = add(name, sum, &other)?,
            None => return Err(differs(name, "participant 0", rank)),
        }
    }
    match others.keys().next() {
        Some(name) => Err(differs(name, &format!("participant {rank}"), 0)),
        None => Ok(()),
    }
}

fn expect_alike(name: &str, a: &Tensor, b: &Tensor, from: usize) -> Added<()> {
    let kind = |t: &Tensor| (t.dtype(), t.dims().get(from..).map(<[usize]>::to_vec));
    match kind(a) == kind(b) {
        true => Ok(()),
        false => Err(Failure::Differs {
            name: name.into(),
            expected: format!("{:?} {:?} in all participants", a.dtype(), a.dims()),
            got: format!("{:?} {:?}", b.dtype(), b.dims()),
        }),
    }
}

fn add_tensors(name: &str, a: &Tensor, b: &Tensor) -> Added<Tensor> {
    expect_alike(name, a, b, 0)?;
    Ok((a + b.to_device(a.device())?)?)
}

/// The rows of either; those of both added.
fn add_rows(name: &str, a: &RowSums, b: &RowSums) -> Added<RowSums> {
    expect_alike(name, &a.gradients, &b.gradients, 1)?;
    let mut rows: Vec<u32> = a.rows.iter().chain(&b.rows).copied().collect();
    rows.sort_unstable();
    rows.dedup();
    let (dtype, width) = (a.gradients.dtype(), a.gradients.dim(1)?);
    let mut gradients = Tensor::zeros((rows.len(), width), dtype, a.gradients.device())?;
    for part in [a, b] {
        let places = part.rows.iter();
        let places = places.map(|row| rows.partition_point(|r| r < row) as u32);
        let count = part.rows.len();
        if count > 0 {
            let places = Tensor::from_iter(places, gradients.device())?.to_dtype(DType::U32)?;
            let added = part.gradients.to_device(gradients.device())?;
            gradients = gradients.index_add(&places, &added, 0)?;
        }
    }
    Ok(RowSums { rows, gradients })
}
