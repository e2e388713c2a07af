//! DLRM (Naumov et al. 2019): dense features through a network, categorical ones through tables, their
//! pairwise products through another network to the logit of a click.
//!
//! ```text
//! t₀     = bottom(dense)                                   [B, m], a ReLU after every layer
//! tᵢ     = the sum or mean of table i's rows               [B, m]
//! z      = (t₀, ⟨tᵢ, tⱼ⟩ for i > j)                        [B, m + n(n-1)/2]
//! logit  = top(z)                                          [B]
//! ```
//!
//! Variables have the names of Facebook's program (`bot_l.0.weight`, `top_l.4.bias`). The tables are one
//! [`SparseTable`] in which they lie one after the other; it is no variable, and no Hessian is taken over
//! it.
//!
//! The networks can be on a GPU. The tables stay on the CPU: rows are looked up and pooled there, the tᵢ
//! are moved to the networks, and their gradients come back.

mod config;
mod ids;

pub use config::Config;
pub use ids::Ids;

use crate::error::{Error, Result};
use crate::parts::tensor;
use crate::weights::{self, Start};
use adahessian::engine::Handle;
use adahessian::ops::{self, Activation, Bags, Mode, bags, interaction};
use adahessian::sparse::{Precision, SparseTable};
use adahessian::{Blocks, NamedVars};
use candle_core::{DType, Tensor};
use candle_nn::VarMap;
use config::initial;
use std::path::Path;

/// The name of the tables.
pub const TABLES: &str = "emb_l";

/// A DLRM, its variables and its tables.
#[derive(Clone)]
pub struct Dlrm {
    config: Config,
    bottom: Vec<(Tensor, Tensor)>,
    top: Vec<(Tensor, Tensor)>,
    tables: SparseTable,
    /// The first row of each table.
    offsets: Vec<u32>,
    map: VarMap,
}

impl Dlrm {
    /// A network with random weights and tables, the numbers of table i uniform within 1/√rows; each a
    /// function of the seed and its name.
    ///
    /// # Errors
    /// [`Error::Config`] for sizes that do not fit; candle's errors.
    pub fn new(config: &Config, start: &Start, precision: Precision) -> Result<Self> {
        config.check()?;
        let value = initial(config, start.seed);
        let shape = [config.rows(), config.width()];
        let tables = SparseTable::from_fn(TABLES, shape, precision, value)?;
        Self::with_tables(config, start, tables)
    }

    /// The same with its tables in a file, as in [`SparseTable::mapped`].
    ///
    /// # Errors
    /// As [`Dlrm::new`], and those of the file.
    pub fn mapped(config: &Config, start: &Start, path: &Path) -> Result<Self> {
        config.check()?;
        let value = initial(config, start.seed);
        let shape = [config.rows(), config.width()];
        let tables = SparseTable::mapped(TABLES, shape, path, value)?;
        Self::with_tables(config, start, tables)
    }

    fn with_tables(config: &Config, start: &Start, tables: SparseTable) -> Result<Self> {
        let map = weights::initialise(&config.parameters(), 0.0, start)?;
        let vars = NamedVars::from(&map);
        let stack = |layers: &[(String, usize, usize)]| {
            let pairs = layers.iter().map(|(name, _, _)| {
                let part = |part: &str| tensor(&vars, &format!("{name}.{part}"));
                Ok((part("weight")?, part("bias")?))
            });
            pairs.collect::<Result<Vec<_>>>()
        };
        let [bottom, top] = config.layers();
        let offsets = config.tables.iter().scan(0, |next, &rows| {
            let first = *next;
            *next += rows as u32;
            Some(first)
        });
        Ok(Self {
            bottom: stack(&bottom)?,
            top: stack(&top)?,
            offsets: offsets.collect(),
            tables,
            config: config.clone(),
            map,
        })
    }

    /// The logits `[B]` of `dense` features [B, features] and the ids of every table.
    ///
    /// In [`Mode::Train`] the rows that are read are variables of this batch, whose gradients go to the
    /// tables in the next step of their [`adahessian::sparse::SparseOptimizer`].
    ///
    /// # Errors
    /// [`Error::Input`] for features of another shape or on another device, a number of ids that does not fit, an id outside
    /// its table.
    pub fn forward(&self, dense: &Tensor, ids: &Ids, mode: &Mode) -> Result<Tensor> {
        let batch = self.check(dense)?;
        self.check_device(dense)?;
        let tables = self.config.tables.len();
        let (rows, lookup) = self.look_up(batch, ids, mode)?;
        let bags_of = match ids {
            Ids::Single(_) => Bags::single(lookup.places, [batch, tables])?,
            Ids::Bags {
                starts, pooling, ..
            } => Bags::new(lookup.places, starts.clone(), [batch, tables], *pooling)?,
        };
        let pooled = bags(&rows, bags_of)?; // [B, tables, m]
        let mut x = Handle::enter(dense)?;
        for (weight, bias) in &self.bottom {
            x = ops::linear(&x, weight, Some(bias), 1, Activation::Relu)?;
        }
        let mut z = interaction(&x, &pooled)?; // [B, m + n(n-1)/2]
        for (i, (weight, bias)) in self.top.iter().enumerate() {
            let activation = match i + 1 == self.top.len() {
                true => Activation::Identity,
                false => Activation::Relu,
            };
            z = ops::linear(&z, weight, Some(bias), 1, activation)?;
        }
        Ok(z.exit()?.flatten_all()?) // [B]
    }

    fn check(&self, dense: &Tensor) -> Result<usize> {
        match dense.dims() {
            &[batch, features]
                if batch > 0
                    && features == self.config.bottom[0]
                    && dense.dtype() == self.dtype() =>
            {
                Ok(batch)
            }
            dims => wrong(
                "dense features",
                format!("[batch, {}] of {:?}", self.config.bottom[0], self.dtype()),
                format!("{dims:?} of {:?}", dense.dtype()),
            ),
        }
    }

    fn check_device(&self, dense: &Tensor) -> Result<()> {
        let (expected, got) = (self.bottom[0].0.device(), dense.device());
        match expected.same_device(got) {
            true => Ok(()),
            false => wrong(
                "device of the dense features",
                format!("{:?}, the networks'", expected.location()),
                format!("{:?}", got.location()),
            ),
        }
    }

    fn dtype(&self) -> DType {
        self.bottom[0].0.dtype()
    }

    /// Its sizes.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The variables of the two networks.
    pub fn vars(&self) -> NamedVars {
        NamedVars::from(&self.map)
    }

    /// [`Self::vars`] as a `VarMap`, for code that wants one.
    pub fn var_map(&self) -> &VarMap {
        &self.map
    }

    /// The tables, one after the other.
    pub fn tables(&self) -> &SparseTable {
        &self.tables
    }

    /// Single entries, as in the paper's experiment.
    pub fn blocks(&self) -> Blocks {
        Blocks::single()
    }
}

fn wrong<T>(what: &'static str, expected: impl Into<String>, got: impl Into<String>) -> Result<T> {
    Err(Error::Input {
        what,
        expected: expected.into(),
        got: got.into(),
    })
}
