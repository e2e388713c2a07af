//! Where the distinct values of a table stand in a list: a hash table for just that.
//!
//! The hash map of the standard library keeps key and position apart and looks one key up after the
//! other. Here both share a word, and the words of many keys are fetched at once, so that the
//! processor waits for the memory once and not for each.

/// Keys that are looked up at once.
pub(super) const BATCH: usize = 64;
/// A categorical value as a key.
pub(super) type Key = u64;

/// Bits of a slot that hold the position; the other 33 hold the key.
const POSITION_BITS: u32 = 31;
/// A slot without a key: no key has all of its 33 bits.
const FREE: u64 = u64::MAX;
/// Slots of the smallest table.
const FEWEST: usize = 1 << 4;

/// The key of the empty value, which is a value like others.
pub(super) const EMPTY: Key = 1 << u32::BITS;

/// The key of a value; the empty one comes with 0 in its place.
pub(super) fn key(value: u32, missing: bool) -> Key {
    u64::from(value) | u64::from(missing) << u32::BITS
}

/// The positions of keys, all below 2³¹.
///
/// Open addressing with linear steps, half full at most. The hash is one multiplication: values are
/// hashes already, and consecutive numbers are spread evenly by it (Fibonacci hashing).
pub(super) struct Positions {
    slots: Vec<u64>,
    /// What the product is shifted by, so that an index is left.
    shift: u32,
    len: usize,
}

impl Default for Positions {
    fn default() -> Self {
        Self::with_slots(FEWEST)
    }
}

impl Positions {
    /// Room for `count` keys.
    pub(super) fn with_room(count: usize) -> Self {
        Self::with_slots((2 * count).next_power_of_two().max(FEWEST))
    }

    fn with_slots(slots: usize) -> Self {
        Self {
            slots: vec![FREE; slots],
            shift: u64::BITS - slots.trailing_zeros(),
            len: 0,
        }
    }

    /// What the slots say in which the search for these keys begins.
    pub(super) fn first_slots(&self, keys: &[Key; BATCH]) -> [u64; BATCH] {
        keys.map(|key| self.slots[self.home(key)])
    }

    /// The position of a key. `first` is what its first slot says.
    pub(super) fn get(&self, key: Key, first: u64) -> Option<u32> {
        if first >> POSITION_BITS == key {
            return Some(position(first));
        }
        self.find(key)
    }

    /// The position of a key.
    pub(super) fn find(&self, key: Key) -> Option<u32> {
        let slot = self.slots[self.place(key)];
        (slot != FREE).then_some(position(slot))
    }

    /// The position of a key, which is `next` if it is new. `first` is what its first slot said
    /// before other keys were inserted: one with a key is never changed, so that it still says so.
    pub(super) fn get_or_insert(&mut self, key: Key, first: u64, next: u32) -> u32 {
        if first >> POSITION_BITS == key {
            return position(first);
        }
        self.insert(key, next)
    }

    /// The position of a key, which is `next` if it is new.
    pub(super) fn insert(&mut self, key: Key, next: u32) -> u32 {
        let place = self.place(key);
        let slot = self.slots[place];
        if slot != FREE {
            return position(slot);
        }
        self.slots[place] = key << POSITION_BITS | u64::from(next);
        self.len += 1;
        if 2 * self.len > self.slots.len() {
            self.grow();
        }
        next
    }

    /// The slot that has the key, or the free one where it belongs.
    fn place(&self, key: Key) -> usize {
        let mut at = self.home(key);
        while self.slots[at] != FREE && self.slots[at] >> POSITION_BITS != key {
            at = (at + 1) & (self.slots.len() - 1);
        }
        at
    }

    fn home(&self, key: Key) -> usize {
        (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize
    }

    fn grow(&mut self) {
        let mut larger = Self::with_slots(2 * self.slots.len());
        for &slot in self.slots.iter().filter(|&&slot| slot != FREE) {
            let at = larger.place(slot >> POSITION_BITS);
            larger.slots[at] = slot;
        }
        larger.len = self.len;
        *self = larger;
    }
}

fn position(slot: u64) -> u32 {
    slot as u32 & (u32::MAX >> 1)
}
