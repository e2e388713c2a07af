//! Buffers that are used again instead of being given back to the kernel.
//!
//! A training step needs the same few sizes over and over. Memory that is freshly mapped costs a
//! page fault every 4 KiB, which was a third of a second backward pass before buffers were kept.

use super::parallel;
use super::real::Real;
use super::real::sealed::Memory;
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

/// Idle buffers by capacity.
pub struct Pool<T>(Mutex<Shelf<T>>);

struct Shelf<T> {
    idle: BTreeMap<usize, Vec<Vec<T>>>,
    /// Elements on the shelf, in use, and the most that was ever in use at once.
    idle_count: usize,
    used_count: usize,
    most_used: usize,
}

impl<T: Real> Pool<T> {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Shelf {
            idle: BTreeMap::new(),
            idle_count: 0,
            used_count: 0,
            most_used: 0,
        }))
    }

    /// A vector of this length with arbitrary contents.
    fn take(&self, length: usize) -> Vec<T> {
        let found = {
            let mut shelf = self.0.lock().unwrap_or_else(|e| e.into_inner());
            let found = shelf.take(length);
            let capacity = found.as_ref().map_or(length, Vec::capacity);
            shelf.used_count += capacity;
            shelf.most_used = shelf.most_used.max(shelf.used_count);
            if found.is_none() {
                // Fresh memory takes the place of idle memory that did not fit.
                let (needed, most) = (shelf.used_count, shelf.most_used);
                shelf.make_room(needed, most);
            }
            found
        };
        match found {
            Some(mut vector) => {
                vector.resize(length, T::ZERO);
                vector
            }
            None => vec![T::ZERO; length],
        }
    }

    /// Frees what is idle, and begins anew to see how much is needed; the elements freed.
    fn clear(&self) -> usize {
        let mut shelf = self.0.lock().unwrap_or_else(|e| e.into_inner());
        shelf.most_used = shelf.used_count;
        let idle = std::mem::take(&mut shelf.idle);
        let count = std::mem::take(&mut shelf.idle_count);
        drop(shelf);
        drop(idle);
        count
    }

    /// Forgets a vector in use that will not be given back.
    fn lose(&self, capacity: usize) {
        let mut shelf = self.0.lock().unwrap_or_else(|e| e.into_inner());
        shelf.used_count = shelf.used_count.saturating_sub(capacity);
    }

    fn give(&self, vector: Vec<T>) {
        let mut shelf = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let capacity = vector.capacity();
        shelf.used_count = shelf.used_count.saturating_sub(capacity);
        // Idle and used memory together stay below what was once needed at the same time.
        let most = shelf.most_used;
        let needed = (shelf.used_count + capacity).min(most);
        shelf.make_room(needed, most);
        if shelf.used_count + shelf.idle_count + capacity <= most {
            shelf.idle_count += capacity;
            shelf.idle.entry(capacity).or_default().push(vector);
        }
    }
}

impl<T> Shelf<T> {
    /// The smallest idle vector that is large enough, if it is not much too large.
    fn take(&mut self, length: usize) -> Option<Vec<T>> {
        let most = length + length / 4;
        let (&capacity, list) = self.idle.range_mut(length..=most).next()?;
        let vector = list.pop();
        if list.is_empty() {
            self.idle.remove(&capacity);
        }
        if vector.is_some() {
            self.idle_count -= capacity;
        }
        vector
    }

    /// Frees idle vectors, the largest first, until `needed` more elements fit below `most`.
    fn make_room(&mut self, needed: usize, most: usize) {
        while self.idle_count + needed > most {
            let Some(mut entry) = self.idle.last_entry() else {
                return;
            };
            if let Some(vector) = entry.get_mut().pop() {
                self.idle_count -= vector.capacity();
            }
            if entry.get().is_empty() {
                entry.remove();
            }
        }
    }
}

/// Gives the memory back to the allocator that operations on the CPU keep for their next steps, and returns how many
/// bytes it was. They keep as much as they once needed at the same time: a process that goes on to something else
/// after training calls this, or one that trains a small model after a large one.
///
/// ```standalone_crate
/// use adahessian::ops::{Activation, activation};
/// use candle_core::{DType, Device, Tensor, Var};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let x = Var::from_tensor(&Tensor::ones((64, 64), DType::F32, &Device::Cpu)?)?;
/// let y = activation(x.as_tensor(), Activation::Gelu)?;
/// drop(adahessian::backward(&y.sum_all()?)?);
/// drop(y);
/// assert!(adahessian::empty_cache() > 0);
/// assert_eq!(adahessian::empty_cache(), 0);
/// # Ok(())
/// # }
/// ```
pub fn empty_cache() -> usize {
    let (single, double) = (f32::pool().clear(), f64::pool().clear());
    single * size_of::<f32>() + double * size_of::<f64>()
}

/// Numbers that one thread copies at a time.
const COPIED: usize = 1 << 18;

/// A vector that goes back to its pool when dropped.
pub struct Buffer<T: Real>(Vec<T>);

impl<T: Real> Buffer<T> {
    /// Zeros.
    pub fn zeroed(length: usize) -> Self {
        let mut buffer = Self::scratch(length);
        buffer.0.fill(T::ZERO);
        buffer
    }

    /// Contents are arbitrary: for results that are written whole.
    pub fn scratch(length: usize) -> Self {
        Self(T::pool().take(length))
    }

    /// A copy of these numbers.
    pub fn copy_of(data: &[T]) -> Self {
        let mut buffer = Self::scratch(data.len());
        if data.len() <= COPIED {
            buffer.0.copy_from_slice(data);
            return buffer;
        }
        let pairs = buffer.0.chunks_mut(COPIED).zip(data.chunks(COPIED));
        parallel::each(pairs, |_, (to, from)| to.copy_from_slice(from));
        buffer
    }

    /// The numbers as an ordinary vector, which does not come back to the pool.
    pub fn into_vec(mut self) -> Vec<T> {
        let vector = std::mem::take(&mut self.0);
        T::pool().lose(vector.capacity());
        vector
    }
}

impl<T: Real> Drop for Buffer<T> {
    fn drop(&mut self) {
        let vector = std::mem::take(&mut self.0);
        if vector.capacity() > 0 {
            T::pool().give(vector);
        }
    }
}

impl<T: Real> Deref for Buffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Real> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::{Buffer, Pool};

    #[test]
    fn a_vector_that_leaves_is_forgotten() {
        let mut buffer = Buffer::<f64>::scratch(7_777);
        buffer.fill(3.0);
        let vector = buffer.into_vec();
        assert!(vector.len() == 7_777 && vector.iter().all(|&x| x == 3.0));
        let other = Buffer::<f64>::scratch(7_777);
        assert_ne!(other.as_ptr(), vector.as_ptr());
    }

    #[test]
    fn what_is_idle_is_freed_and_what_is_used_is_not() {
        static POOL: Pool<f64> = Pool::new();
        let (first, second) = (POOL.take(1000), POOL.take(3000));
        POOL.give(first);
        assert_eq!(POOL.clear(), 1000);
        assert_eq!(POOL.clear(), 0);
        // It may keep what was in use meanwhile.
        POOL.give(second);
        assert_eq!(POOL.clear(), 3000);
        let third = POOL.take(10);
        POOL.give(third);
        assert_eq!(POOL.clear(), 10);
    }

    #[test]
    fn a_buffer_is_used_again_and_zeroed_where_asked() {
        let mut first = Buffer::<f64>::scratch(12_345);
        first.fill(7.0);
        let place = first.as_ptr();
        drop(first);
        let second = Buffer::<f64>::zeroed(12_345);
        assert_eq!(second.as_ptr(), place);
        assert!(second.iter().all(|&x| x == 0.0));
    }
}
