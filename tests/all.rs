//! All integration tests in one binary, so that candle is linked once.

mod trajectories;
