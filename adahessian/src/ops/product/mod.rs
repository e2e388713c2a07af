//! Products and sums of whole tensors with each other, as operations of the engine: what a model would else leave the
//! engine for.

mod columns;
mod rows;
mod sum;

pub use columns::multiply_columns;
pub use rows::products_of_rows;
pub use sum::add_rows;
