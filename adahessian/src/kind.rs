//! What the variables of a model are to their layers, as the layers' constructors say.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a variable is to its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The weight of a linear map: [out, in/groups], with a 1 behind it where it is a pointwise
    /// convolution's.
    Matrix,
    /// A table of which rows are looked up: [entries, width].
    Table,
    /// A convolution's kernel, whose last `window` dimensions move over the input:
    /// [out, in/groups, height, width] has a window of 2.
    Kernel {
        /// The number of dimensions.
        window: usize,
    },
    /// A number for every output or channel: biases, scales and shifts of norms, slopes.
    Vector,
    /// What is saved with a model and not trained: running statistics.
    Statistic,
}

/// The kinds of a model's variables by their names. Cheap to clone.
///
/// ```
/// use adahessian::{Block, Blocks, Kind, Kinds, nn};
/// use candle_core::{DType, Device};
/// let map = nn::VarMap::new();
/// let vb = nn::VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
/// let (layer, kinds) = Kinds::record(|| nn::linear(4, 2, vb.pp("first")));
/// assert_eq!(kinds.get("first.weight"), Some(Kind::Matrix));
/// // The layers say what their variables are, a model how large the blocks of each kind are.
/// let blocks = Blocks::by_kind(&kinds, |kind| match kind {
///     Kind::Matrix => Block::Chunks(4),
///     _ => Block::Single,
/// });
/// assert_eq!(blocks.resolve("first.weight", &[2, 4])?, Block::Chunks(4));
/// # layer?;
/// # Ok::<(), adahessian::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kinds(Arc<BTreeMap<String, Kind>>);

thread_local! {
    static RECORD: RefCell<Option<BTreeMap<String, Kind>>> = const { RefCell::new(None) };
}

/// Puts back the record around this one, also when the work panics.
struct Before(Option<BTreeMap<String, Kind>>);

impl Drop for Before {
    fn drop(&mut self) {
        let before = self.0.take();
        RECORD.with(|record| *record.borrow_mut() = before);
    }
}

impl Kinds {
    /// Does `work`, which makes a model, and writes down what its layers say of their variables, as far
    /// as they are made on this thread. One record within another starts anew, and the outer one goes on
    /// after it.
    pub fn record<R>(work: impl FnOnce() -> R) -> (R, Self) {
        let _before = Before(RECORD.with(|record| record.replace(Some(BTreeMap::new()))));
        let made = work();
        let kinds = RECORD.with(|record| record.take());
        (made, Self(Arc::new(kinds.unwrap_or_default())))
    }

    /// The kind of the variable of this name, where a layer said one.
    pub fn get(&self, name: &str) -> Option<Kind> {
        self.0.get(name).copied()
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, Kind)> {
        self.0.iter().map(|(name, kind)| (name.as_str(), *kind))
    }
}

/// Writes down a variable's kind, where there is a record.
pub(crate) fn note(name: String, kind: Kind) {
    RECORD.with(|record| {
        if let Some(record) = record.borrow_mut().as_mut() {
            record.insert(name, kind);
        }
    });
}
