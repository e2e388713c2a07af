//! Kernels of programs on a CUDA device: one launch for many variables, wherever their memory is.

use super::program::{Program, Shape};
use super::ptx::{self, AVERAGE_WORDS, THREADS};
use crate::error::Result;
use crate::numeric::cuda::{self, Kernels};
use crate::numeric::traced::assembly::{F64, Type};
use candle_core::CudaDevice;
use candle_core::cuda::cudarc::driver::{CudaSlice, DevicePtr, LaunchConfig, PushKernelArg};

/// Entries of a row, which are one block's work: of a small model fewer, so that all of the device has something to
/// do; of a large one so many that the table is small beside it.
fn row_length(entries: usize) -> usize {
    (entries >> 10)
        .next_power_of_two()
        .clamp(SHORTEST_ROW, 1 << 14)
}

const SHORTEST_ROW: usize = 1 << 10;

#[derive(PartialEq, Eq, Hash)]
enum Key {
    Program(Shape, usize, Type),
    Averages(Type, bool),
}

static KERNELS: Kernels<Key> = Kernels::new("adahessian-step");

/// With how many arrays are read, and how many are written.
fn name(key: &Key) -> String {
    match key {
        Key::Program(shape, _, of) => {
            let (reads, writes) = (shape.arrays, shape.stores.len());
            format!("step_{reads}r_{writes}w_{}", of.name)
        }
        Key::Averages(of, _) => format!("average_1r_1w_{}", of.name),
    }
}

fn write(key: &Key) -> String {
    match key {
        Key::Program(shape, constants, of) => ptx::kernel(shape, *constants, *of),
        Key::Averages(of, absolute) => ptx::averages(*of, *absolute),
    }
}

/// What a program does to one variable: where its arrays begin, in the order of the program's, its own numbers, and
/// how many entries there are.
pub(super) struct Work {
    pub arrays: Vec<u64>,
    pub shared: Vec<f64>,
    pub count: usize,
}

/// The sums of a launch, on their way: for each of the program's sums one number of each row.
pub(super) struct Sums {
    rows: CudaSlice<f64>,
    /// The variable of each row.
    variables: Vec<usize>,
}

impl Sums {
    /// Waits for them. For each variable of the launch, its sums; `largest` says which of them is none, but a largest number.
    pub fn read(
        &self,
        device: &CudaDevice,
        count: usize,
        largest: Option<usize>,
    ) -> Result<Vec<Vec<f64>>> {
        let numbers = device.clone_dtoh(&self.rows)?;
        let per_sum: Vec<&[f64]> = numbers.chunks(self.variables.len().max(1)).collect();
        let mut sums = vec![vec![0.0_f64; per_sum.len()]; count];
        for (number, rows) in per_sum.into_iter().enumerate() {
            for (variable, row) in self.variables.iter().zip(rows) {
                let to = &mut sums[*variable][number];
                *to = match Some(number) == largest {
                    true => to.max(*row),
                    false => *to + row,
                };
            }
        }
        Ok(sums)
    }
}

/// Runs a program over variables.
pub(super) fn run(device: &CudaDevice, program: &Program, of: Type, all: &[Work]) -> Result<Sums> {
    let Program { shape, constants } = program;
    let (mut table, mut variables) = (Vec::new(), Vec::new());
    let length = row_length(all.iter().map(|work| work.count).sum());
    for (variable, work) in all.iter().enumerate() {
        for start in (0..work.count).step_by(length) {
            let offset = (start * of.bytes) as u64;
            table.extend(work.arrays.iter().map(|address| address + offset));
            table.extend(work.shared.iter().map(|number| match of == F64 {
                true => number.to_bits(),
                false => u64::from((*number as f32).to_bits()),
            }));
            table.push(length.min(work.count - start) as u64);
            variables.push(variable);
        }
    }
    debug_assert_eq!(table.len(), variables.len() * ptx::words(shape));
    // SAFETY: the kernel writes to each of them, for every row has a block.
    let rows = unsafe { device.alloc::<f64>(ptx::results(shape) * variables.len())? };
    let sums = Sums { rows, variables };
    if sums.variables.is_empty() {
        return Ok(sums);
    }
    let key = Key::Program(shape.clone(), constants.len(), of);
    let kernel = KERNELS.kernel(key, name, write);
    let function = device.get_or_load_custom_func(&kernel.name, &kernel.module, &kernel.text)?;
    let table = device.clone_htod(&table)?;
    let narrow: Vec<f32> = constants.iter().map(|constant| *constant as f32).collect();
    let entries: u64 = all.iter().map(|work| work.count as u64).sum();
    let mut launch = function.builder();
    launch.arg(&table).arg(&sums.rows).arg(&entries);
    match of == F64 {
        true => constants.iter().for_each(|constant| {
            launch.arg(constant);
        }),
        false => narrow.iter().for_each(|constant| {
            launch.arg(constant);
        }),
    }
    // SAFETY: the parameters are those that the text names, in its order; every address in the table is that of an
    // array of at least as many entries as its row has, in this device's memory, whose tensor lives in the caller.
    unsafe { launch.launch(blocks(sums.variables.len())) }.map_err(cuda::driver)?;
    Ok(sums)
}

/// D averaged over its blocks. Each variable's D, where its averages go, entries, entries of a block.
pub(super) fn average(
    device: &CudaDevice,
    of: Type,
    absolute: bool,
    all: &[(u64, u64, usize, usize)],
) -> Result<()> {
    let mut table = Vec::new();
    let length = row_length(all.iter().map(|(_, _, count, _)| count).sum());
    for &(from, to, count, run) in all {
        let whole = length / run * run;
        for start in (0..count).step_by(whole) {
            let offset = (start * of.bytes) as u64;
            let entries = whole.min(count - start) as u64;
            table.extend([from + offset, to + offset, entries, run as u64]);
        }
    }
    let rows = table.len() / AVERAGE_WORDS;
    if rows == 0 {
        return Ok(());
    }
    let kernel = KERNELS.kernel(Key::Averages(of, absolute), name, write);
    let function = device.get_or_load_custom_func(&kernel.name, &kernel.module, &kernel.text)?;
    let table = device.clone_htod(&table)?;
    let entries: u64 = all.iter().map(|(_, _, count, _)| *count as u64).sum();
    let mut launch = function.builder();
    launch.arg(&table).arg(&entries);
    // SAFETY: as in `run`.
    unsafe { launch.launch(blocks(rows)) }.map_err(cuda::driver)?;
    Ok(())
}

/// A block of D that is longer would be one thread's work for too long. A row has room for one.
pub(super) const LONGEST_RUN: usize = SHORTEST_ROW;

fn blocks(count: usize) -> LaunchConfig {
    LaunchConfig {
        grid_dim: (count as u32, 1, 1),
        block_dim: (THREADS as u32, 1, 1),
        shared_mem_bytes: 0,
    }
}

/// Memory of the device that nobody has written to.
pub(super) struct Scratch {
    words: CudaSlice<f64>,
}

impl Scratch {
    /// Room for so many numbers.
    pub fn new(device: &CudaDevice, of: Type, count: usize) -> Result<Self> {
        let words = (count * of.bytes).div_ceil(8);
        // SAFETY: read only after a kernel has written to it.
        let words = unsafe { device.alloc::<f64>(words)? };
        Ok(Self { words })
    }

    /// Where it begins. What is asked for on this thread keeps its order.
    pub fn address(&self, device: &CudaDevice) -> u64 {
        self.words.device_ptr(&device.cuda_stream()).0
    }
}
