//! Loops over several threads.
//!
//! rayon's own are generic in what they go over and in what they call: thousands of lines for the compiler, at each of
//! some fifty places and for each type of numbers. Here one loop, over numbers, is compiled once; the rest is a list
//! of the items, which the threads take theirs from.

use parking_lot::Mutex;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::OnceLock;

/// Calls `work` with each item and its place among them, in parallel. Few items with much work each: every one costs some
/// tens of nanoseconds.
pub(crate) fn each<X: Send>(items: impl IntoIterator<Item = X>, work: impl Fn(usize, X) + Sync) {
    let items = listed(items);
    over(items.len(), &|i| {
        let item = items[i].lock().take();
        if let Some(item) = item {
            work(i, item);
        }
    });
}

/// The same; what `work` returns, in the order of the items.
pub(crate) fn map<X: Send, R: Send>(
    items: impl IntoIterator<Item = X>,
    work: impl Fn(usize, X) -> R + Sync,
) -> Vec<R> {
    let items = listed(items);
    let results: Vec<Mutex<Option<R>>> = items.iter().map(|_| Mutex::new(None)).collect();
    over(items.len(), &|i| {
        let item = items[i].lock().take();
        let result = item.map(|item| work(i, item));
        *results[i].lock() = result;
    });
    let results = results.into_iter().map(Mutex::into_inner);
    results.flatten().collect()
}

fn listed<X>(items: impl IntoIterator<Item = X>) -> Vec<Mutex<Option<X>>> {
    items
        .into_iter()
        .map(|item| Mutex::new(Some(item)))
        .collect()
}

/// Calls `work` with all numbers below `count`. One is done on the thread that is there: waking another takes longer.
fn over(count: usize, work: &(dyn Fn(usize) + Sync)) {
    match count {
        0 => {}
        1 => work(0),
        _ => (0..count).into_par_iter().for_each(work),
    }
}

/// Calls `work`, whose loops then run on threads that take up nothing else: for who holds a lock. All threads of the
/// program's own pool may be at work of the user's that waits for that lock, and would never come to the loops. Who is
/// on a pool already stays there.
pub(crate) fn apart<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    static POOL: OnceLock<Option<ThreadPool>> = OnceLock::new();
    let pool = || {
        let threads = ThreadPoolBuilder::new().num_threads(rayon::current_num_threads());
        let named = threads.thread_name(|index| format!("adahessian-apart-{index}"));
        named.build().ok()
    };
    match rayon::current_thread_index() {
        Some(_) => work(),
        None => match POOL.get_or_init(pool) {
            Some(pool) => pool.install(work),
            None => work(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{each, map};

    #[test]
    fn every_item_once_and_in_its_place() {
        for count in [0, 1, 2, 1000] {
            let mut numbers = vec![1; 3 * count];
            each(numbers.chunks_mut(3), |i, part| {
                part.iter_mut().for_each(|x| *x += i);
            });
            let expected: Vec<usize> = (0..3 * count).map(|i| 1 + i / 3).collect();
            assert_eq!(numbers, expected);
            let squares = map(0..count, |i, item| {
                assert_eq!(i, item);
                item * item
            });
            assert_eq!(squares, (0..count).map(|i| i * i).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_panic_comes_through() {
        let result = std::panic::catch_unwind(|| each(0..10, |_, item| assert_ne!(item, 7)));
        assert!(result.is_err());
    }
}
