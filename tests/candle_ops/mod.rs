//! candle's operations at both levels, and the page that says how each of them fares.
//!
//! Every row is measured when the tests run. The page must say what was measured: a row that upstream
//! mends turns the test red, and the page is written anew with `UPDATE_DOCS=1`.

mod core;
mod measure;
mod nn;
mod ours;
mod page;
