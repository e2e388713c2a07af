//! The data of several tensors at once, some of them to be changed.

use crate::error::Result;
use crate::numeric::Real;
use crate::numeric::parallel;
use candle_core::{CpuStorage, InplaceOp1, Layout, Storage, Tensor};
use std::cell::RefCell;
use std::marker::PhantomData;

/// Calls `work` with the data of `changed`, writable, and of `read`. `None`, and nothing done, where
/// that cannot be: another device or dtype, a strided layout, two tensors with the same memory, or
/// no entries at all.
pub(crate) fn with_slices<T: Real, R, const N: usize, const I: usize>(
    changed: [&Tensor; N],
    read: [&Tensor; I],
    work: impl FnOnce([&mut [T]; N], [&[T]; I]) -> R,
) -> Result<Option<R>> {
    if !apart::<T>(&changed, &read) {
        return Ok(None);
    }
    let guards = read.map(Tensor::storage_and_layout);
    let read = guards.each_ref().map(|(storage, layout)| match &**storage {
        Storage::Cpu(storage) => data(T::slice(storage).unwrap_or(&[]), layout),
        _ => &[],
    });
    let (mut work, mut result) = (Some(work), None);
    open(&changed, Vec::with_capacity(N), &mut |changed| {
        if let (Some(work), Ok(changed)) = (work.take(), <[&mut [T]; N]>::try_from(changed)) {
            result = Some(work(changed, read));
        }
    })?;
    Ok(result)
}

/// Whether all of them can be worked on, at once.
fn apart<T: Real>(changed: &[&Tensor], read: &[&Tensor]) -> bool {
    let mut places = Vec::with_capacity(changed.len() + read.len());
    changed
        .iter()
        .chain(read)
        .all(|tensor| match place::<T>(tensor) {
            Some(place) if !places.contains(&place) => {
                places.push(place);
                true
            }
            _ => false,
        })
}

/// Where the memory of a tensor that can be worked on begins; views of one memory have one place,
/// and one lock, which must not be taken twice.
fn place<T: Real>(tensor: &Tensor) -> Option<*const T> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) if layout.is_contiguous() && layout.shape().elem_count() > 0 => {
            T::slice(storage).map(<[T]>::as_ptr)
        }
        _ => None,
    }
}

fn data<'a, T>(slice: &'a [T], layout: &Layout) -> &'a [T] {
    &slice[layout.start_offset()..][..layout.shape().elem_count()]
}

type Work<'w, T> = &'w mut dyn FnMut(Vec<&mut [T]>);

/// Takes the write locks of `rest` one after the other, then calls `work`.
fn open<T: Real>(
    rest: &[&Tensor],
    taken: Vec<&mut [T]>,
    work: Work<'_, T>,
) -> candle_core::Result<()> {
    match rest.split_first() {
        None => {
            work(taken);
            Ok(())
        }
        Some((first, rest)) => first.inplace_op1(&Opened {
            next: RefCell::new(Some((rest, taken, work))),
            number: PhantomData,
        }),
    }
}

type Next<'a, T> = (&'a [&'a Tensor], Vec<&'a mut [T]>, Work<'a, T>);

/// candle lets an "operation in place" write to a tensor's memory. This one goes on to the next
/// tensor while it holds this one's.
struct Opened<'a, T> {
    next: RefCell<Option<Next<'a, T>>>,
    number: PhantomData<T>,
}

impl<T: Real> InplaceOp1 for Opened<'_, T> {
    fn name(&self) -> &'static str {
        "update in place"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let next = self.next.borrow_mut().take();
        let (Some((rest, taken, work)), Some(slice)) = (next, T::slice_mut(storage)) else {
            candle_core::bail!("a tensor of another type than it had");
        };
        let mut taken: Vec<&mut [T]> = taken;
        taken.push(&mut slice[layout.start_offset()..][..layout.shape().elem_count()]);
        open(rest, taken, work)
    }
}

/// A piece of several slices: where it begins, and its parts of those that are changed and of those that are read.
type Piece<'a, T, const N: usize, const I: usize> = (usize, [&'a mut [T]; N], [&'a [T]; I]);

/// Work on one piece. Without its own type: [`pieces`] would be compiled anew for every rule.
type OnPiece<'w, T, R, const N: usize, const I: usize> =
    &'w (dyn Fn(usize, [&mut [T]; N], [&[T]; I]) -> R + Sync);

/// Calls `work` on all pieces of `length` entries, in parallel, with the place where the piece
/// begins; the results in the order of the pieces.
pub(crate) fn pieces<T: Real, R: Send, const N: usize, const I: usize>(
    length: usize,
    changed: [&mut [T]; N],
    read: [&[T]; I],
    work: OnPiece<'_, T, R, N, I>,
) -> Vec<R> {
    let all = changed.first().map(|c| c.len());
    let all = all.or(read.first().map(|r| r.len())).unwrap_or(0);
    if all <= length {
        return vec![work(0, changed, read)];
    }
    let pieces = cut(length, all, changed, read);
    // The tensors' locks are held.
    parallel::apart(|| {
        parallel::map(pieces, |_, (start, changed, read)| {
            work(start, changed, read)
        })
    })
}

fn cut<'a, T, const N: usize, const I: usize>(
    length: usize,
    all: usize,
    changed: [&'a mut [T]; N],
    read: [&'a [T]; I],
) -> Vec<Piece<'a, T, N, I>> {
    let mut rest = changed;
    let mut cut = Vec::with_capacity(all.div_ceil(length));
    for start in (0..all).step_by(length) {
        let count = length.min(all - start);
        let parts = rest.each_mut().map(|slice| {
            let (part, left) = std::mem::take(slice).split_at_mut(count);
            *slice = left;
            part
        });
        cut.push((start, parts, read.map(|r| &r[start..start + count])));
    }
    cut
}
