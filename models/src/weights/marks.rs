//! What a checkpoint may do otherwise about a variable, said where the model makes it.

use std::cell::RefCell;

/// What is said of the variables that are being made.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks {
    pub optional: bool,
    pub head: bool,
    /// Another last part of the name.
    pub alias: Option<String>,
}

thread_local! {
    static MARKS: RefCell<Marks> = RefCell::new(Marks::default());
}

/// Puts back what was said around this, also when the work panics.
struct Before(Marks);

impl Drop for Before {
    fn drop(&mut self) {
        MARKS.with(|marks| marks.replace(std::mem::take(&mut self.0)));
    }
}

fn marked<R>(mark: impl FnOnce(&mut Marks), work: impl FnOnce() -> R) -> R {
    let mut now = marks();
    let _before = Before(now.clone());
    mark(&mut now);
    MARKS.with(|marks| marks.replace(now));
    work()
}

/// What is said of a variable that is made now.
pub(super) fn marks() -> Marks {
    MARKS.with(|marks| marks.borrow().clone())
}

/// Variables that a checkpoint may lack: they are initialised then, and reported.
pub fn optional<R>(work: impl FnOnce() -> R) -> R {
    marked(|marks| marks.optional = true, work)
}

/// Variables of a last layer: optional, and fresh whatever the checkpoint holds where
/// [`Start::new_head`](super::Start::new_head) says so.
pub fn head<R>(work: impl FnOnce() -> R) -> R {
    let mark = |marks: &mut Marks| (marks.optional, marks.head) = (true, true);
    marked(mark, work)
}

/// Variables that a checkpoint may hold under another name: `alias` in the place of the last part.
pub fn also_called<R>(alias: &str, work: impl FnOnce() -> R) -> R {
    marked(|marks| marks.alias = Some(alias.into()), work)
}
