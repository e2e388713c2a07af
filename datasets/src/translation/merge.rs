//! Joins neighbouring pieces of a word by a list of merges.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// The symbol of what no merge knows.
pub(super) const UNKNOWN: u32 = u32::MAX;

/// For two symbols their place in the list, and the symbol that they become.
pub(super) type Merges = HashMap<(u32, u32), (u32, u32)>;

/// A part of a word: its symbol and where it ends, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub(super) symbol: u32,
    pub(super) end: u32,
}

/// A piece and its neighbours, by their first places.
#[derive(Clone, Copy)]
struct Link {
    piece: Piece,
    before: usize,
    next: usize,
    gone: bool,
}

/// No neighbour.
const NONE: usize = usize::MAX;

/// Joins all neighbours that are first in the list, from left to right, then all that are first then, until there
/// are none; the ends of what is left. A word of `n` pieces takes time in the order of `n log n`.
pub(super) fn join(pieces: &[Piece], merges: &Merges) -> Vec<u32> {
    let mut links = linked(pieces);
    // What may be joined: the place in the list, and of the left piece.
    let mut queue = BinaryHeap::new();
    for left in 0..links.len() {
        queue.extend(candidate(&links, merges, left));
    }
    let mut places = Vec::new();
    while let Some(&Reverse((rank, _))) = queue.peek() {
        // All of one rank before any new neighbours, even those that are earlier in the list.
        places.clear();
        while let Some(Reverse((_, left))) = queue.peek().copied().filter(|next| next.0.0 == rank) {
            queue.pop();
            places.push(left);
        }
        places.dedup();
        let mut joined = Vec::new();
        for &left in &places {
            // What was joined meanwhile has other neighbours.
            let Some((now, symbol)) = merge_of(&links, merges, left) else {
                continue;
            };
            if now == rank {
                unite(&mut links, left, symbol);
                joined.push(left);
            }
        }
        for left in joined {
            queue.extend(candidate(&links, merges, left));
            let before = links[left].before;
            if before != NONE {
                queue.extend(candidate(&links, merges, before));
            }
        }
    }
    let left = links.iter().filter(|link| !link.gone);
    left.map(|link| link.piece.end).collect()
}

fn linked(pieces: &[Piece]) -> Vec<Link> {
    let link = |(place, &piece): (usize, &Piece)| Link {
        piece,
        before: place.checked_sub(1).unwrap_or(NONE),
        next: if place + 1 < pieces.len() {
            place + 1
        } else {
            NONE
        },
        gone: false,
    };
    pieces.iter().enumerate().map(link).collect()
}

/// The merge of a piece with the one behind it.
fn merge_of(links: &[Link], merges: &Merges, left: usize) -> Option<(u32, u32)> {
    let link = links.get(left).filter(|link| !link.gone)?;
    let next = links.get(link.next)?;
    merges.get(&(link.piece.symbol, next.piece.symbol)).copied()
}

fn candidate(links: &[Link], merges: &Merges, left: usize) -> Option<Reverse<(u32, usize)>> {
    merge_of(links, merges, left).map(|(rank, _)| Reverse((rank, left)))
}

/// Joins a piece and the one behind it, which is there.
fn unite(links: &mut [Link], left: usize, symbol: u32) {
    let right = links[left].next;
    let (end, next) = (links[right].piece.end, links[right].next);
    links[right].gone = true;
    links[left].piece = Piece { symbol, end };
    links[left].next = next;
    if next != NONE {
        links[next].before = left;
    }
}
