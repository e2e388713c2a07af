//! All integration tests in one binary, so that candle is linked once.

mod candle_holes;
mod hvp;
mod models;
mod ops;
mod optimizers;
mod second_order;
mod trajectories;
mod glue_data;
mod hub;
mod text_data;
