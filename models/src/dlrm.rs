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

use crate::error::{Error, Result};
use crate::parts::tensor;
use crate::weights::{self, Fill, Parameter, Start};
use adahessian::ops::recommend::{Bags, Pooling, bags, interaction};
use adahessian::ops::{Activation, Handle, Mode, text};
use adahessian::random::Stream;
use adahessian::sparse::{Lookup, Precision, SparseTable};
use adahessian::{Blocks, NamedVars};
use candle_core::{DType, Tensor};
use candle_nn::VarMap;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The name of the tables.
pub const TABLES: &str = "emb_l";

/// The sizes of a DLRM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Widths of the bottom network, from the number of dense features to the tables' width.
    pub bottom: Vec<usize>,
    /// Rows of each table.
    pub tables: Vec<usize>,
    /// Widths of the top network after its input, the last one being 1.
    pub top: Vec<usize>,
}

impl Config {
    /// The network of the paper's Criteo Kaggle experiment: 13-512-256-64-16, 26 tables of width 16,
    /// 367-512-256-1.
    pub fn kaggle(tables: Vec<usize>) -> Self {
        Self {
            bottom: vec![13, 512, 256, 64, 16],
            tables,
            top: vec![512, 256, 1],
        }
    }

    /// The tables' width m.
    pub fn width(&self) -> usize {
        self.bottom.last().copied().unwrap_or(0)
    }

    /// Rows of all tables together.
    pub fn rows(&self) -> usize {
        self.tables.iter().sum()
    }

    /// Numbers that the top network reads.
    fn interactions(&self) -> usize {
        let n = self.tables.len() + 1;
        self.width() + n * (n - 1) / 2
    }

    fn check(&self) -> Result<()> {
        let fail = |field: &'static str, expected: &str, got: String| {
            Err(Error::Config {
                field,
                expected: expected.into(),
                got,
            })
        };
        if self.bottom.len() < 2 || self.bottom.contains(&0) {
            let expected = "at least two widths, none of them 0";
            return fail("bottom", expected, format!("{:?}", self.bottom));
        }
        if self.top.last() != Some(&1) || self.top.contains(&0) {
            let expected = "widths that end with 1, none of them 0";
            return fail("top", expected, format!("{:?}", self.top));
        }
        if self.tables.is_empty() || self.tables.contains(&0) {
            let expected = "at least one table, none of 0 rows";
            return fail("tables", expected, format!("{} tables", self.tables.len()));
        }
        Ok(())
    }

    /// Layers as (name, inputs, outputs): Facebook's numbers count the activations in between.
    fn layers(&self) -> [Vec<(String, usize, usize)>; 2] {
        let of = |prefix: &str, widths: &[usize]| {
            let pairs = widths.windows(2).enumerate();
            pairs
                .map(|(i, pair)| (format!("{prefix}.{}", 2 * i), pair[0], pair[1]))
                .collect()
        };
        let mut top = vec![self.interactions()];
        top.extend(&self.top);
        [of("bot_l", &self.bottom), of("top_l", &top)]
    }

    /// W ~ N(0, 2/(inputs + outputs)), b ~ N(0, 1/outputs).
    fn parameters(&self) -> Vec<Parameter> {
        let layers = self.layers().into_iter().flatten();
        let parameters = layers.flat_map(|(name, inputs, outputs)| {
            let weight = Fill::Deviation((2.0 / (inputs + outputs) as f64).sqrt());
            let bias = Fill::Deviation((1.0 / outputs as f64).sqrt());
            [
                Parameter::new(format!("{name}.weight"), &[outputs, inputs], weight),
                Parameter::new(format!("{name}.bias"), &[outputs], bias),
            ]
        });
        parameters.collect()
    }
}

/// The categorical features of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ids {
    /// One id a table: `ids[b·tables + t]`, from 0 to the table's rows.
    Single(Vec<u32>),
    /// Several: `ids[starts[b·tables + t]..starts[b·tables + t + 1]]`.
    Bags {
        /// The ids of all bags, one after the other.
        ids: Vec<u32>,
        /// Where each bag begins, and where the last one ends.
        starts: Vec<u32>,
        /// What a bag's rows become.
        pooling: Pooling,
    },
}

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
    /// tables in the next step of their [`adahessian::SparseOptimizer`].
    ///
    /// # Errors
    /// [`Error::Input`] for features of another shape, a number of ids that does not fit, an id outside
    /// its table.
    pub fn forward(&self, dense: &Tensor, ids: &Ids, mode: &Mode) -> Result<Tensor> {
        let batch = self.check(dense)?;
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
            x = text::linear(&x, weight, Some(bias), 1, Activation::Relu)?;
        }
        let mut z = interaction(&x, &pooled)?; // [B, m + n(n-1)/2]
        for (i, (weight, bias)) in self.top.iter().enumerate() {
            let activation = match i + 1 == self.top.len() {
                true => Activation::Identity,
                false => Activation::Relu,
            };
            z = text::linear(&z, weight, Some(bias), 1, activation)?;
        }
        Ok(z.exit()?.flatten_all()?) // [B]
    }

    fn look_up(&self, batch: usize, ids: &Ids, mode: &Mode) -> Result<(Handle, Lookup)> {
        let tables = self.config.tables.len();
        let mut all = Vec::new();
        let mut add = |bag: usize, ids: &[u32]| {
            let table = bag % tables;
            let (first, rows) = (self.offsets[table], self.config.tables[table]);
            for &id in ids {
                if id as usize >= rows {
                    let expected = format!("0 to {} in table {table}", rows - 1);
                    return wrong("id", expected, format!("{id} in sample {}", bag / tables));
                }
                all.push(first + id);
            }
            Ok(())
        };
        match ids {
            Ids::Single(ids) if ids.len() == batch * tables => {
                for (bag, id) in ids.iter().enumerate() {
                    add(bag, std::slice::from_ref(id))?;
                }
            }
            Ids::Bags { ids, starts, .. } if starts.len() == batch * tables + 1 => {
                for (bag, ends) in starts.windows(2).enumerate() {
                    match ids.get(ends[0] as usize..ends[1] as usize) {
                        Some(ids) => add(bag, ids)?,
                        None => {
                            let expected = format!("ends of bags from 0 to {}", ids.len());
                            return wrong("starts of bags", expected, format!("{ends:?}"));
                        }
                    }
                }
            }
            Ids::Single(ids) => {
                let expected = format!("{batch} x {tables}");
                return wrong("ids", expected, ids.len().to_string());
            }
            Ids::Bags { starts, .. } => {
                let expected = format!("{batch} x {tables} + 1");
                return wrong("starts of bags", expected, starts.len().to_string());
            }
        }
        let lookup = match mode {
            Mode::Train { .. } => self.tables.lookup(&all)?,
            Mode::Eval => self.tables.read(&all)?,
        };
        Ok((Handle::enter(&lookup.rows)?, lookup))
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

/// The first numbers of a row: table i uniform within 1/√rows.
fn initial(config: &Config, seed: u64) -> impl Fn(usize, &mut [f64]) + Sync + use<> {
    let stream = Stream::new(seed, TABLES, 0, 0);
    let ends = config.tables.iter().scan(0, |end, &rows| {
        *end += rows;
        Some((*end, 1.0 / (rows as f64).sqrt()))
    });
    let ends: Vec<(usize, f64)> = ends.collect();
    move |row, numbers| {
        let table = ends.partition_point(|(end, _)| *end <= row);
        let bound = ends.get(table).map_or(0.0, |(_, bound)| *bound);
        stream.uniform_from(row * numbers.len(), numbers);
        numbers
            .iter_mut()
            .for_each(|x| *x = bound * (2.0 * *x - 1.0));
    }
}

fn wrong<T>(what: &'static str, expected: impl Into<String>, got: impl Into<String>) -> Result<T> {
    Err(Error::Input {
        what,
        expected: expected.into(),
        got: got.into(),
    })
}
