//! The values of one table in a chunk: a column, as rows are numbered table by table.

use super::CATEGORIES;
use super::positions::{BATCH, Key, key};

/// The values of all tables of a chunk's rows, each table's together.
#[derive(Default)]
pub(super) struct Columns {
    /// Rows there is room for.
    room: usize,
    rows: usize,
    /// `room` values for each table.
    values: Vec<u32>,
    /// For each row, a bit for each table: whether its value is the empty one.
    missing: Vec<u32>,
}

/// One table's.
pub(super) struct Column<'a> {
    table: usize,
    values: &'a mut [u32],
    missing: &'a [u32],
}

impl Columns {
    /// Removes all rows and makes room for others.
    pub(super) fn clear(&mut self, room: usize) {
        self.rows = 0;
        self.room = room;
        // What they hold is written before it is read.
        self.values.resize(room * CATEGORIES, 0);
        self.missing.resize(room, 0);
    }

    /// Adds a row: its values, 0 in the place of the empty ones, which `missing` has a bit for.
    pub(super) fn push(&mut self, values: &[u32; CATEGORIES], missing: u32) {
        assert!(self.rows < self.room, "a row more than lines");
        self.missing[self.rows] = missing;
        let columns = self.values.chunks_exact_mut(self.room);
        for (column, &value) in columns.zip(values) {
            column[self.rows] = value;
        }
        self.rows += 1;
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// The columns, in the order of the tables.
    pub(super) fn each(&mut self) -> impl Iterator<Item = Column<'_>> {
        let (rows, missing) = (self.rows, &self.missing[..self.rows]);
        let columns = self.values.chunks_exact_mut(self.room.max(1));
        columns.enumerate().map(move |(table, values)| Column {
            table,
            values: &mut values[..rows],
            missing,
        })
    }

    /// The values of some rows, table by table.
    pub(super) fn of(&self, rows: std::ops::Range<usize>) -> impl Iterator<Item = &[u32]> {
        let columns = self.values.chunks_exact(self.room.max(1));
        columns.map(move |column| &column[rows.clone()])
    }
}

impl<'a> Column<'a> {
    /// All values, 0 in the place of the empty one.
    pub(super) fn values(self) -> &'a mut [u32] {
        self.values
    }

    /// The values and their keys by batches; of the last batch only so many keys count.
    pub(super) fn batches(self) -> impl Iterator<Item = (&'a mut [u32], [Key; BATCH])> {
        let batches = self.values.chunks_mut(BATCH);
        batches
            .zip(self.missing.chunks(BATCH))
            .map(move |(values, missing)| {
                let mut keys = [0; BATCH];
                for ((into, &value), missing) in keys.iter_mut().zip(&*values).zip(missing) {
                    *into = key(value, missing >> self.table & 1 == 1);
                }
                (values, keys)
            })
    }
}
