//! A formula on a CUDA device.

use super::program::{Program, is_over_group};
use super::ptx::{self, COLUMNS, Index, Key, Part};
use super::{Given, Sizes};
use crate::error::Result;
use crate::numeric::cuda::{self, Kernels, address, type_of, written_address};
use crate::numeric::traced::assembly::{F64, Type, has};
use candle_core::cuda::cudarc::driver::{CudaSlice, DevicePtr, LaunchConfig, PushKernelArg};
use candle_core::{CudaDevice, Tensor};

static KERNELS: Kernels<Key> = Kernels::new("adahessian-formula");

/// With how many arrays are read that have a number for each entry, group and place, and how many are written.
fn name(key: &Key) -> String {
    let levels = key.shape.levels();
    let results = key.shape.results.iter();
    let of_entry = results.filter(|result| levels[**result].of_entry).count();
    let of_group = key.shape.results.len() - of_entry;
    let part = match key.part {
        Part::All => "",
        Part::Stage(_) => "_stage",
        Part::Results => "_results",
    };
    let [entries, shared, places, _] = key.given;
    format!(
        "formula{part}_{entries}e_{shared}g_{places}p_to_{of_entry}e_{of_group}g_{}",
        key.of.name
    )
}

/// A kernel's parameters have 4 KiB.
const MOST_PARAMETERS: usize = 4096 / 8 - 8;

/// Each has a number for each of up to 512 threads in the 48 KiB that a block's threads share.
const MOST_SUMS: usize = 12;

/// Blocks that give all of a large device something to do.
const ENOUGH_BLOCKS: usize = 256;

/// How the entries are divided among blocks.
struct Division {
    index: Index,
    /// Of a block.
    threads: usize,
    /// Entries of a part of a group, and parts.
    part: usize,
    parts: usize,
    /// Blocks side by side.
    across: usize,
}

impl Division {
    fn new(sizes: Sizes, sums: bool) -> Self {
        let count = sizes.outer * sizes.inner;
        let index = match sizes {
            Sizes {
                inner: 1,
                outer: 2..,
                ..
            } => Index::Column,
            Sizes { outer: 1, .. } => Index::Row,
            _ => Index::Both,
        };
        let columns = match index {
            Index::Column => COLUMNS,
            Index::Row | Index::Both => 1,
        };
        let across = sizes.groups.div_ceil(columns);
        // Entries of a thread, of which there are enough for it to be worth its while.
        let lanes_of = |entries: usize| (count / entries).next_power_of_two();
        let (threads, part) = match sums {
            false => {
                let threads = (lanes_of(4) * columns).clamp(32, 256);
                (threads, 4 * (threads / columns))
            }
            // What one block can do at once, or what there are enough blocks for.
            true if across >= ENOUGH_BLOCKS / 2 || count * columns <= 8192 => {
                ((lanes_of(4) * columns).clamp(32.max(columns), 512), count)
            }
            true => {
                let wanted = ENOUGH_BLOCKS.div_ceil(across);
                let worth = (count * columns).div_ceil(2048);
                (256, count.div_ceil(wanted.min(worth).clamp(1, 64)))
            }
        };
        // A device has 65,535 blocks one above the other.
        let part = part.max(count.div_ceil(65_535)).max(1);
        Self {
            index,
            threads,
            part,
            parts: count.div_ceil(part),
            across,
        }
    }
}

/// None where candle's operations have to do it.
pub(super) fn run(
    program: &Program,
    given: &Given,
    sizes: Sizes,
    shape: &[usize],
) -> Result<Option<Vec<Tensor>>> {
    let Some(first) = given.tensors().next() else {
        return Ok(None);
    };
    let (Some(device), Some(of)) = (cuda::device(first), type_of(first.dtype())) else {
        return Ok(None);
    };
    let alike = |x: &Tensor| x.dtype() == first.dtype() && x.device().same_device(first.device());
    let instructions = &program.shape.instructions;
    let sums = instructions.iter().filter(|i| is_over_group(**i)).count();
    let parameters =
        given.tensors().count() + program.shape.results.len() + program.constants.len();
    let all = sizes.all();
    let can = given.tensors().all(alike)
        && !program.incomplete
        && instructions.iter().all(|instruction| has(of, *instruction))
        && parameters <= MOST_PARAMETERS
        && sums <= MOST_SUMS
        && (1..1 << 31).contains(&all)
        && sizes.groups < 1 << 31;
    if !can {
        return Ok(None);
    }
    let levels = program.shape.levels();
    let mut results = Vec::with_capacity(program.shape.results.len());
    for result in &program.shape.results {
        let shape = match levels[*result].of_entry {
            true => shape.to_vec(),
            false => vec![sizes.groups],
        };
        // SAFETY: the kernel that writes the results writes each of their numbers.
        results.push(unsafe { Tensor::empty(shape, first.dtype(), first.device())? });
    }
    let launch = Launch {
        program,
        given,
        sizes,
        device,
        of,
        results,
    };
    let stages = program.shape.results.iter().map(|r| levels[*r].sums);
    let stages = stages.max().unwrap_or(0);
    let division = Division::new(sizes, stages > 0);
    if division.parts == 1 || stages == 0 {
        launch.part(Part::All, &division, None)?;
        return Ok(Some(launch.results));
    }
    // SAFETY: a stage's launch writes the sums that later ones read.
    let left = unsafe {
        device.alloc::<f64>((sums * division.parts * sizes.groups * of.bytes).div_ceil(8))?
    };
    for stage in 1..=stages {
        launch.part(Part::Stage(stage), &division, Some(&left))?;
    }
    let of_entries = program.shape.results.iter().any(|r| levels[*r].of_entry);
    launch.results_from(&division, of_entries, &left)?;
    Ok(Some(launch.results))
}

struct Launch<'a> {
    program: &'a Program,
    given: &'a Given,
    sizes: Sizes,
    device: &'a CudaDevice,
    of: Type,
    results: Vec<Tensor>,
}

impl Launch<'_> {
    /// The results of sums in parts. Of groups alone it is a small launch.
    fn results_from(
        &self,
        division: &Division,
        of_entries: bool,
        left: &CudaSlice<f64>,
    ) -> Result<()> {
        let above = if of_entries { division.parts } else { 1 };
        self.launch(Part::Results, division, Some(left), above)
    }

    fn part(&self, part: Part, division: &Division, left: Option<&CudaSlice<f64>>) -> Result<()> {
        self.launch(part, division, left, division.parts)
    }

    fn launch(
        &self,
        part: Part,
        division: &Division,
        left: Option<&CudaSlice<f64>>,
        above: usize,
    ) -> Result<()> {
        let Program {
            shape, constants, ..
        } = self.program;
        let Given {
            entries,
            shared,
            places,
        } = self.given;
        let key = Key {
            shape: shape.clone(),
            given: [entries.len(), shared.len(), places.len(), constants.len()],
            of: self.of,
            index: division.index,
            threads: division.threads,
            part,
        };
        let kernel = KERNELS.kernel(key, name, ptx::kernel);
        let function =
            self.device
                .get_or_load_custom_func(&kernel.name, &kernel.module, &kernel.text)?;
        let count = self.sizes.outer * self.sizes.inner;
        let sizes = [
            self.sizes.groups,
            self.sizes.inner,
            count,
            division.part,
            division.parts,
        ]
        .map(|size| size as u32);
        let stream = self.device.cuda_stream();
        let sums = left.map(|left| left.device_ptr(&stream));
        let mut addresses = vec![sums.as_ref().map_or(0, |(address, _)| *address)];
        for tensor in self.given.tensors() {
            addresses.push(address(tensor)?);
        }
        for result in &self.results {
            addresses.push(written_address(result)?);
        }
        let narrow: Vec<f32> = constants.iter().map(|constant| *constant as f32).collect();
        let mut launch = function.builder();
        sizes.iter().for_each(|size| {
            launch.arg(size);
        });
        addresses.iter().for_each(|address| {
            launch.arg(address);
        });
        match self.of == F64 {
            true => constants.iter().for_each(|constant| {
                launch.arg(constant);
            }),
            false => narrow.iter().for_each(|constant| {
                launch.arg(constant);
            }),
        }
        let blocks = LaunchConfig {
            grid_dim: (division.across as u32, above as u32, 1),
            block_dim: (division.threads as u32, 1, 1),
            shared_mem_bytes: 0,
        };
        // SAFETY: the parameters are those that the text names, in its order. Every address is that of an array of
        // as many numbers as the sizes say, which lives in `self` till after the launch.
        unsafe { launch.launch(blocks) }.map_err(cuda::driver)?;
        // Marks the use of all that the kernel was asked to read and to write to.
        for tensor in self.given.tensors() {
            address(tensor)?;
        }
        for result in &self.results {
            written_address(result)?;
        }
        Ok(())
    }
}
