//! All integration tests in one binary, so that candle is linked once.

mod accumulation;
mod callbacks;
mod candle_holes;
mod checkpoint;
mod engine;
mod glue_data;
mod hub;
mod hvp;
mod image_batches;
mod image_data;
mod memory;
mod metrics;
mod models;
mod ops;
mod optimizers;
mod resume;
mod second_order;
mod text_data;
mod text_ops;
mod trainer;
mod trajectories;
mod vision_models;
mod vision_ops;
mod vision_training;
