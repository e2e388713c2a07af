//! Convolution of images, directly on shifted views.
//!
//! For all but the smallest images no column matrix is made. An image is copied once into a *grid* with its border of zeros, split
//! into stride × stride phases (fewer where a side is shorter than the stride), so that what one tap of the kernel sees is a contiguous shifted view
//! of the grid, whatever the stride and the dilation. Two small kernels do the rest:
//!
//! * [`correlate`]: y[o, p] = Σ_k w[o, k] · grid[offset(k) + p], for blocks of output channels and
//!   vectors of positions. It is the forward pass, and, on the grid of the output's gradient, the
//!   input gradient.
//! * [`outer`]: w̄[k, o] = Σ_p grid[offset(k) + p] · u[p, o], vectors along the output channels: the
//!   weight gradient.
//!
//! Images of fewer than 64 output pixels go through [`columns`]. [`batch`] chooses, cuts a batch into
//! chunks and runs them in parallel.

pub(crate) mod batch;
pub(crate) mod columns;
pub(crate) mod correlate;
pub(crate) mod outer;
pub(crate) mod plan;

pub(crate) use plan::Plan;
