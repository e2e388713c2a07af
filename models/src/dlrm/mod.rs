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
//! The networks can be on a GPU, and the tables with them ([`Dlrm::with_tables_on`]) or on the CPU: then rows are
//! looked up and pooled there, the tᵢ are moved to the networks, and their gradients come back.

mod config;
mod ids;

pub use config::Config;
pub use ids::Ids;

use crate::config::to_json;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::parts::normal;
use crate::weights::{self, Start, Variables};
use adahessian::engine::Handle;
use adahessian::nn::{self, Linear, LinearConfig, VarBuilder};
use adahessian::ops::{Activation, Bags, Mode, bags, interaction};
use adahessian::sparse::{Precision, SparseTable};
use adahessian::{Block, Kind};
use candle_core::{DType, Device, Tensor};
use config::initial;
use serde_json::Value;
use std::path::Path;

/// The name of the tables.
pub const TABLES: &str = "emb_l";

/// A DLRM, its variables and its tables.
///
/// [`Model::save`] writes the two networks; [`adahessian::sparse::save`] writes the tables.
#[derive(Clone)]
pub struct Dlrm {
    config: Config,
    json: Value,
    networks: Networks,
    tables: SparseTable,
    /// The first row of each table.
    offsets: Vec<u32>,
    variables: Variables,
}

#[derive(Clone)]
struct Networks {
    bottom: Vec<Linear>,
    top: Vec<Linear>,
}

impl Networks {
    fn new(config: &Config, vb: VarBuilder) -> Result<Self> {
        let mut top = vec![config.interactions()];
        top.extend(&config.top);
        Ok(Self {
            bottom: stack(&config.bottom, vb.pp("bot_l"))?,
            top: stack(&top, vb.pp("top_l"))?,
        })
    }
}

/// Layers of these widths: W ~ N(0, 2/(inputs + outputs)), b ~ N(0, 1/outputs). Facebook's numbers count the
/// activations in between.
fn stack(widths: &[usize], vb: VarBuilder) -> Result<Vec<Linear>> {
    let layers = widths.windows(2).enumerate().map(|(i, pair)| {
        let (inputs, outputs) = (pair[0], pair[1]);
        let weight = normal((2.0 / (inputs + outputs) as f64).sqrt());
        let bias = normal((1.0 / outputs as f64).sqrt());
        let config = LinearConfig::new(weight, bias);
        Ok(nn::linear_with(inputs, outputs, config, vb.pp(2 * i))?)
    });
    layers.collect()
}

impl Dlrm {
    /// A network with random weights and tables, the numbers of table i uniform within 1/√rows; each a
    /// function of the seed and its name. The tables are on the CPU.
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

    /// The model with its tables on this device: a CUDA device that has room for them and, where they are trained,
    /// for the accumulators of their optimizer.
    ///
    /// # Errors
    /// Those of [`SparseTable::to_device`].
    pub fn with_tables_on(self, device: &Device) -> Result<Self> {
        Ok(Self {
            tables: self.tables.to_device(device)?,
            ..self
        })
    }

    fn with_tables(config: &Config, start: &Start, tables: SparseTable) -> Result<Self> {
        let (networks, variables) = weights::draw(start, |vb| Networks::new(config, vb))?;
        let offsets = config.tables.iter().scan(0, |next, &rows| {
            let first = *next as u32; // all rows together fit, see Config::check
            *next += rows;
            Some(first)
        });
        Ok(Self {
            networks,
            offsets: offsets.collect(),
            tables,
            config: config.clone(),
            json: to_json(config, "dlrm")?,
            variables,
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
        let Networks { bottom, top } = &self.networks;
        let mut x = Handle::enter(dense)?; // [B, features]
        for layer in bottom {
            x = layer.forward_activation(&x, Activation::Relu)?; // in the end [B, m]
        }
        let mut z = interaction(&x, &pooled)?; // [B, m + n(n-1)/2]
        for (i, layer) in top.iter().enumerate() {
            let activation = match i + 1 == top.len() {
                true => Activation::Identity,
                false => Activation::Relu,
            };
            z = layer.forward_activation(&z, activation)?; // in the end [B, 1]
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
        let (expected, got) = (self.networks.bottom[0].weight().device(), dense.device());
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
        self.networks.bottom[0].weight().dtype()
    }

    /// Its sizes.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The tables, one after the other.
    pub fn tables(&self) -> &SparseTable {
        &self.tables
    }
}

impl Model for Dlrm {
    fn variables(&self) -> &Variables {
        &self.variables
    }

    fn config(&self) -> Value {
        self.json.clone()
    }

    /// Single entries, as in the paper's experiment.
    fn block(&self, _: Kind) -> Block {
        Block::Single
    }
}

fn wrong<T>(what: &'static str, expected: impl Into<String>, got: impl Into<String>) -> Result<T> {
    Err(Error::Input {
        what,
        expected: expected.into(),
        got: got.into(),
    })
}
