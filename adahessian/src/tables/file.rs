//! Tables to and from safetensors files, without a second copy in memory.

use super::placed;
use super::store::{Store, numbers, numbers_mut};
use super::table::{Precision, SparseTable};
use crate::error::{Error, Result};
use crate::files::save_tensors;
use candle_core::Device;
use half::bf16;
use memmap2::Mmap;
use parking_lot::RwLockReadGuard;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors, View};
use std::borrow::Cow;
use std::fs::File;
use std::path::Path;

/// Writes tables into a safetensors file, each under its name and in its own precision. Nothing may
/// change them meanwhile: their lookups and steps wait.
///
/// # Errors
/// [`Error::File`] if it cannot be written, [`Error::Setting`] for two tables of one name.
pub fn save(tables: &[SparseTable], path: &Path) -> Result<()> {
    let mut all = Vec::with_capacity(tables.len());
    for (i, table) in tables.iter().enumerate() {
        if tables[..i].iter().any(|other| other.name() == table.name()) {
            return Err(Error::Setting {
                what: "names of tables in one file",
                expected: "each once".into(),
                got: format!("`{}` twice", table.name()),
            });
        }
        all.push((table.name(), Numbers::of(table)?));
    }
    let views = all.iter().map(|(name, numbers)| (*name, numbers));
    save_tensors(views, None, path)
}

/// Takes over the tables' numbers from a file that [`save`] wrote. All is checked first: on an error no
/// table is changed.
///
/// # Errors
/// [`Error::File`] if it is missing or is no safetensors file; [`Error::Variable`] naming a table that
/// it does not hold, or holds with another shape or precision.
pub fn load(tables: &[SparseTable], path: &Path) -> Result<()> {
    let map = map(path)?;
    for (table, view) in tables.iter().zip(views(tables, &map, path)?) {
        match &mut *table.store_mut() {
            Store::F32(data) => copy(view.data(), data),
            Store::F64(data) => copy(view.data(), data),
            Store::Bf16(data) => copy(view.data(), data),
            Store::Mapped(map) => copy(view.data(), numbers_mut(map)),
            Store::Device(numbers, _) => placed::overwrite(numbers, view.data())?,
        }
    }
    Ok(())
}

/// The first table of a file that is none of these, by its name.
///
/// # Errors
/// [`Error::File`] as [`load`].
pub fn unknown(tables: &[SparseTable], path: &Path) -> Result<Option<String>> {
    let map = map(path)?;
    let content = SafeTensors::deserialize(&map).map_err(|e| failed(path, e))?;
    let known = |name: &str| tables.iter().any(|table| table.name() == name);
    let mut others: Vec<&str> = content.names().into_iter().filter(|n| !known(n)).collect();
    others.sort_unstable();
    Ok(others.first().map(|name| name.to_string()))
}

/// Whether [`load`] would succeed; no table is changed.
///
/// # Errors
/// As [`load`].
pub fn check(tables: &[SparseTable], path: &Path) -> Result<()> {
    views(tables, &map(path)?, path).map(drop)
}

fn map(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(|e| failed(path, e))?;
    // SAFETY: the map is read once, now; whoever writes to the file meanwhile spoils numbers, as he
    // would in any other way of reading it.
    unsafe { Mmap::map(&file) }.map_err(|e| failed(path, e))
}

fn views<'a>(tables: &[SparseTable], map: &'a Mmap, path: &Path) -> Result<Vec<TensorView<'a>>> {
    let content = SafeTensors::deserialize(map).map_err(|e| failed(path, e))?;
    let views = tables.iter().map(|table| view_of(&content, table));
    views.collect()
}

fn view_of<'a>(content: &SafeTensors<'a>, table: &SparseTable) -> Result<TensorView<'a>> {
    let expected = (dtype(&table.store()), table.dims());
    let refuse = |got: String| {
        Err(Error::Variable {
            name: table.name().into(),
            expected: format!("{:?} {:?}", expected.0, expected.1),
            got,
        })
    };
    match content.tensor(table.name()) {
        Err(_) => refuse("no such table in the file".into()),
        Ok(view) if view.dtype() != expected.0 || view.shape() != expected.1 => {
            refuse(format!("{:?} {:?}", view.dtype(), view.shape()))
        }
        Ok(view) => Ok(view),
    }
}

fn failed(path: &Path, error: impl ToString) -> Error {
    Error::File {
        path: path.into(),
        what: error.to_string(),
    }
}

fn dtype(store: &Store) -> Dtype {
    match store.precision() {
        Precision::F32 => Dtype::F32,
        Precision::F64 => Dtype::F64,
        Precision::Bf16 => Dtype::BF16,
    }
}

/// A table's numbers as they lie in memory, held as long as they are written; a copy of those on a GPU.
struct Numbers<'a> {
    store: Held<'a>,
    shape: [usize; 2],
}

enum Held<'a> {
    Locked(RwLockReadGuard<'a, Store>),
    Copied(Store),
}

impl<'a> Numbers<'a> {
    fn of(table: &'a SparseTable) -> Result<Self> {
        let store = table.store();
        let store = match &*store {
            Store::Device(numbers, precision) => {
                let numbers = numbers.to_device(&Device::Cpu)?;
                Held::Copied(placed::store_of(&numbers, *precision)?)
            }
            _ => Held::Locked(store),
        };
        Ok(Self {
            store,
            shape: table.dims(),
        })
    }

    fn store(&self) -> &Store {
        match &self.store {
            Held::Locked(store) => store,
            Held::Copied(store) => store,
        }
    }

    fn bytes(&self) -> &[u8] {
        match self.store() {
            Store::F32(data) => bytes(data),
            Store::F64(data) => bytes(data),
            Store::Bf16(data) => bytes(data),
            Store::Mapped(map) => bytes(numbers(map)),
            Store::Device(..) => &[], // copied, see above
        }
    }
}

impl View for &Numbers<'_> {
    fn dtype(&self) -> Dtype {
        dtype(self.store())
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.bytes())
    }

    fn data_len(&self) -> usize {
        self.bytes().len()
    }
}

/// Numbers of which every bit pattern is one, so that they may be read and written as bytes; in the
/// order of bytes of safetensors on every machine that candle runs on.
trait Plain: Copy {}
impl Plain for f32 {}
impl Plain for f64 {}
impl Plain for bf16 {}

fn bytes<T: Plain>(data: &[T]) -> &[u8] {
    // SAFETY: `Plain`; bytes have no alignment, so that nothing is left before or behind.
    let (_, bytes, _) = unsafe { data.align_to::<u8>() };
    bytes
}

fn copy<T: Plain>(from: &[u8], to: &mut [T]) {
    // SAFETY: as above.
    let (_, to, _) = unsafe { to.align_to_mut::<u8>() };
    to.copy_from_slice(from); // of one length: dtype and shape are the same
}
