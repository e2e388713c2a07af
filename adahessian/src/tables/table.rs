//! A table of vectors that is read and changed row by row.

use super::store::{Store, fill, numbers, numbers_mut};
use super::{mapped, placed, rows};
use crate::error::{Error, Result};
use crate::numeric::Memory;
use candle_core::{DType, Device, Tensor, Var};
use half::bf16;
use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// What a table's numbers are stored as. Except for [`Precision::F64`] they are computed with in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Four bytes a number.
    #[default]
    F32,
    /// Two bytes a number, with 8 significant bits: an update smaller than 1/512 of a number is lost.
    Bf16,
    /// Eight bytes a number: for checks.
    F64,
}

impl Precision {
    pub(super) fn stored(self) -> DType {
        match self {
            Precision::Bf16 => DType::BF16,
            other => other.computed(),
        }
    }

    pub(super) fn computed(self) -> DType {
        match self {
            Precision::F64 => DType::F64,
            Precision::F32 | Precision::Bf16 => DType::F32,
        }
    }
}

/// Embedding vectors [rows, width]. Clones share the numbers.
#[derive(Clone)]
pub struct SparseTable(Arc<Inner>);

struct Inner {
    name: String,
    rows: usize,
    width: usize,
    store: RwLock<Store>,
    /// What was looked up and not stepped with yet.
    leaves: Mutex<Vec<Leaf>>,
}

/// Rows of the table as a variable of one batch.
pub(crate) struct Leaf {
    pub var: Var,
    /// Which, in rising order.
    pub rows: Vec<u32>,
    /// Whether a gradient of a loss came to them.
    pub reached: bool,
}

/// What a lookup gives.
#[derive(Clone, Debug)]
pub struct Lookup {
    /// The different rows that were asked for, [rows, width]: a variable in training.
    pub rows: Tensor,
    /// For every id its place among `rows`.
    pub places: Vec<u32>,
}

impl SparseTable {
    /// A table whose numbers `value` gives: it is called with a row and the row's numbers to fill, in
    /// parallel and in no order.
    ///
    /// # Errors
    /// [`Error::Setting`] for sizes of 0 or more rows than ids can name.
    pub fn from_fn(
        name: impl Into<String>,
        [rows, width]: [usize; 2],
        precision: Precision,
        value: impl Fn(usize, &mut [f64]) + Sync,
    ) -> Result<Self> {
        let count = check(rows, width)?;
        let mut store = match precision {
            Precision::F32 => Store::F32(vec![0.0; count]),
            Precision::Bf16 => Store::Bf16(vec![bf16::ZERO; count]),
            Precision::F64 => Store::F64(vec![0.0; count]),
        };
        match &mut store {
            Store::F32(data) => fill(data, width, &value),
            Store::F64(data) => fill(data, width, &value),
            Store::Bf16(data) => fill(data, width, &value),
            Store::Mapped(_) | Store::Device(..) => {}
        }
        Ok(Self::of(name.into(), [rows, width], store))
    }

    /// A table in a file, for tables larger than memory: rows of little-endian f32, nothing else. The
    /// file is made, with numbers from `value` as in [`SparseTable::from_fn`], if it is not there; it is
    /// used as it is if it has the right length. It is filled beside its place, as `.NAME.partial`, and
    /// gets its name when all of it is on the disk: a process that is killed before leaves no table.
    /// Changes reach it when the system writes its pages back, or at [`SparseTable::flush`]. Nothing else
    /// may change the file meanwhile, and no other table be made of it. A new file is written with zeros first, so that a
    /// full disk is an error; where the file system compresses them, it is a signal that ends the process (SIGBUS).
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be opened, if the disk has no room for it, if it has another length, is
    /// another table's, or is being filled by another process;
    /// [`Error::Setting`] as above.
    pub fn mapped(
        name: impl Into<String>,
        [rows, width]: [usize; 2],
        path: &Path,
        value: impl Fn(usize, &mut [f64]) + Sync,
    ) -> Result<Self> {
        let bytes = check(rows, width)? as u64 * 4;
        let layout = || format!("{rows} rows of {width} f32");
        let map = mapped::open(path, bytes, layout, |map| {
            fill(numbers_mut(map), width, &value);
        })?;
        Ok(Self::of(name.into(), [rows, width], Store::Mapped(map)))
    }

    fn of(name: String, [rows, width]: [usize; 2], store: Store) -> Self {
        Self(Arc::new(Inner {
            name,
            rows,
            width,
            store: RwLock::new(store),
            leaves: Mutex::new(Vec::new()),
        }))
    }

    /// A table of the same name with a copy of the numbers, on this device: the CPU or a CUDA device, where rows are
    /// looked up and stepped with in place. On the device where the table is already it is the table itself.
    ///
    /// # Errors
    /// [`Error::Setting`] for a device of another kind; candle's errors, where the device's memory is too small, say.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        placed::check_device(device)?;
        if self.device().same_device(device) {
            return Ok(self.clone());
        }
        let store = self.store();
        let stored = placed::stored(&store, self.dims(), device)?;
        let store = placed::store_of(&stored, store.precision())?;
        Ok(Self::of(self.0.name.clone(), self.dims(), store))
    }

    /// The device that has its numbers.
    pub fn device(&self) -> Device {
        match &*self.store() {
            Store::Device(numbers, _) => numbers.device().clone(),
            _ => Device::Cpu,
        }
    }

    /// Its name, which error messages and saved states use.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Rows and width.
    pub fn dims(&self) -> [usize; 2] {
        [self.0.rows, self.0.width]
    }

    /// What its numbers are stored as.
    pub fn precision(&self) -> Precision {
        self.store().precision()
    }

    /// The type that leaves and read rows have.
    pub fn dtype(&self) -> DType {
        self.store().precision().computed()
    }

    /// The rows of these ids as a variable of this batch. Its gradient goes to the table in the next
    /// step of the [`crate::sparse::SparseOptimizer`] that owns the table, and is kept until then: rows of a table
    /// that no optimizer owns are to be taken with [`SparseTable::read`].
    ///
    /// # Errors
    /// [`Error::Setting`] for an id that is no row, or no ids at all; candle's errors.
    pub fn lookup(&self, ids: &[u32]) -> Result<Lookup> {
        let (tensor, rows, places) = self.unique(ids)?;
        let var = Var::from_tensor(&tensor)?;
        let lookup = Lookup {
            rows: var.as_tensor().clone(),
            places,
        };
        self.0.leaves.lock().push(Leaf {
            var,
            rows,
            reached: false,
        });
        Ok(lookup)
    }

    /// The same as constants, for evaluation: nothing is remembered.
    ///
    /// # Errors
    /// As [`SparseTable::lookup`].
    pub fn read(&self, ids: &[u32]) -> Result<Lookup> {
        let (rows, _, places) = self.unique(ids)?;
        Ok(Lookup { rows, places })
    }

    fn unique(&self, ids: &[u32]) -> Result<(Tensor, Vec<u32>, Vec<u32>)> {
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.0.rows) {
            return Err(Error::Setting {
                what: "id of an embedding",
                expected: format!("0 to {} in table `{}`", self.0.rows - 1, self.0.name),
                got: id.to_string(),
            });
        }
        if ids.is_empty() {
            return Err(Error::Setting {
                what: "ids of a lookup",
                expected: format!("at least one for table `{}`", self.0.name),
                got: "none".into(),
            });
        }
        let (rows, places) = rows::unique(ids);
        let shape = [rows.len(), self.0.width];
        let width = self.0.width;
        let tensor = match &*self.store() {
            Store::F32(data) => Memory::tensor(rows::read(data, width, &rows), &shape)?,
            Store::F64(data) => Memory::tensor(rows::read(data, width, &rows), &shape)?,
            Store::Bf16(data) => Memory::tensor(rows::read(data, width, &rows), &shape)?,
            Store::Mapped(map) => Memory::tensor(rows::read(numbers(map), width, &rows), &shape)?,
            Store::Device(numbers, precision) => placed::read(numbers, &rows, *precision)?,
        };
        Ok((tensor, rows, places))
    }

    /// A copy of all numbers on the CPU, [rows, width], in the type of [`SparseTable::dtype`].
    ///
    /// # Errors
    /// If candle fails.
    pub fn to_tensor(&self) -> Result<Tensor> {
        let store = self.store();
        let stored = placed::stored(&store, self.dims(), &Device::Cpu)?;
        Ok(stored.to_dtype(store.precision().computed())?)
    }

    /// Takes over numbers from a tensor [rows, width].
    ///
    /// # Errors
    /// [`Error::Variable`] naming the table for another shape; candle's errors.
    pub fn set(&self, values: &Tensor) -> Result<()> {
        if values.dims() != self.dims() {
            return Err(Error::Variable {
                name: self.0.name.clone(),
                expected: format!("{:?}", self.dims()),
                got: format!("{:?}", values.dims()),
            });
        }
        let values = values.detach().to_device(&self.device())?.copy()?;
        let values = placed::store_of(&values, self.precision())?;
        match (&mut *self.store_mut(), values) {
            (Store::Mapped(map), Store::F32(data)) => numbers_mut(map).copy_from_slice(&data),
            (store, values) => *store = values,
        }
        Ok(())
    }

    /// Writes a mapped table's changes to its file; does nothing for others.
    ///
    /// # Errors
    /// [`Error::File`] if the system cannot write.
    pub fn flush(&self) -> Result<()> {
        match &*self.store() {
            Store::Mapped(map) => map.flush().map_err(|e| Error::File {
                path: self.0.name.clone().into(),
                what: e.to_string(),
            }),
            _ => Ok(()),
        }
    }

    /// Takes the leaves of lookups since the last call.
    pub(crate) fn take_leaves(&self) -> Vec<Leaf> {
        std::mem::take(&mut *self.0.leaves.lock())
    }

    pub(crate) fn store(&self) -> RwLockReadGuard<'_, Store> {
        self.0.store.read()
    }

    pub(crate) fn store_mut(&self) -> RwLockWriteGuard<'_, Store> {
        self.0.store.write()
    }

    /// Whether both are the same table.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for SparseTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SparseTable({:?}, {:?})", self.0.name, self.dims())
    }
}

fn check(rows: usize, width: usize) -> Result<usize> {
    // Eight bytes a number at most, and of that no more than one allocation can have.
    let fits = |count: &usize| (1..=isize::MAX as usize / 8).contains(count);
    let count = rows.checked_mul(width).filter(fits);
    match count.filter(|_| u32::try_from(rows).is_ok()) {
        Some(count) => Ok(count),
        None => Err(Error::Setting {
            what: "size of a sparse table",
            expected: format!(
                "1 to {} rows of at least one number, no more than memory can name",
                u32::MAX
            ),
            got: format!("{rows} rows of {width}"),
        }),
    }
}
