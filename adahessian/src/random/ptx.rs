//! The kernels that draw, as text in PTX. Every thread makes the block of the generator that its four entries are of,
//! and shares nothing: ten rounds of integers cost less than the memory that the results go to.

use super::{MULTIPLIER, WEYL};
use crate::numeric::traced::assembly::{ENTRY, HEAD, Type, literal};
use std::fmt::Write;

/// Entries that a thread makes.
pub(super) const LANES: usize = 4;
/// Entries of a block of signs: a bit each of four words.
pub(super) const SIGNS: usize = 128;

/// Registers of the generator, and those of the entries.
fn registers(of: Type) -> String {
    let Type { name, bytes } = of;
    format!(
        "  .reg .b64 %to, %at, %wide, %limit;
  .reg .b32 %count, %thread, %size, %group, %c<4>, %k<2>, %h<2>, %l<2>, %word, %lane, %entry;
  .reg .b{} %bits;
  .reg .{name} %value, %off, %on;
  .reg .pred %out, %p;
",
        8 * bytes
    )
}

/// The number of this thread.
const THREAD: &str = "  mov.u32 %thread, %tid.x;
  mov.u32 %group, %ctaid.x;
  mov.u32 %size, %ntid.x;
  mad.lo.u32 %thread, %group, %size, %thread;
";

/// Ten rounds of Philox on the counter `%c0` to `%c3` with the key `%k0`, `%k1`.
fn philox() -> String {
    let round = format!(
        "  mul.hi.u32 %h0, %c0, {a};
  mul.lo.u32 %l0, %c0, {a};
  mul.hi.u32 %h1, %c2, {b};
  mul.lo.u32 %l1, %c2, {b};
  xor.b32 %h1, %h1, %c1;
  xor.b32 %c0, %h1, %k0;
  mov.u32 %c1, %l1;
  xor.b32 %h0, %h0, %c3;
  xor.b32 %c2, %h0, %k1;
  mov.u32 %c3, %l0;
  add.u32 %k0, %k0, {};
  add.u32 %k1, %k1, {};
",
        WEYL[0],
        WEYL[1],
        a = MULTIPLIER[0],
        b = MULTIPLIER[1],
    );
    round.repeat(10)
}

/// 0 where a number is dropped, `on` where it is kept: where its word of the generator is below `limit`.
///
/// Parameters: where to, how many, the key, step, sample, limit, on.
pub(super) fn decisions(of: Type) -> String {
    let Type { name, bytes } = of;
    let mut text = format!(
        "{HEAD}.visible .entry {ENTRY}(
  .param .u64 to,
  .param .u32 count,
  .param .u32 key_0,
  .param .u32 key_1,
  .param .u32 step,
  .param .u32 sample,
  .param .u64 limit,
  .param .{name} on
)
{{
{}  ld.param.u64 %to, [to];
  ld.param.u32 %count, [count];
  ld.param.u32 %k0, [key_0];
  ld.param.u32 %k1, [key_1];
  ld.param.u64 %limit, [limit];
  ld.param.{name} %on, [on];
{THREAD}  mov.u32 %c0, %thread;
  mov.u32 %c1, 0;
  ld.param.u32 %c2, [step];
  ld.param.u32 %c3, [sample];
{}  mov.{name} %off, {};
  mul.lo.u32 %entry, %thread, {LANES};
",
        registers(of),
        philox(),
        literal(0.0, of)
    );
    for lane in 0..LANES {
        // One limit is beyond 32 bits: that of numbers which are all kept.
        let _ = write!(
            text,
            "  setp.ge.u32 %out, %entry, %count;
  @%out ret;
  cvt.u64.u32 %wide, %c{lane};
  setp.lt.u64 %p, %wide, %limit;
  selp.{name} %value, %on, %off, %p;
  mad.wide.u32 %at, %entry, {bytes}, %to;
  st.global.{name} [%at], %value;
  add.u32 %entry, %entry, 1;
"
        );
    }
    text + "  ret;\n}\n"
}

/// Signs of several streams, each from a block of its own on: a thread finds its stream in the table.
///
/// Parameters: where to, the table, how many streams, how many entries in all, step, sample. The table has the first
/// block of each stream, then both words of each one's key.
pub(super) fn signs(of: Type) -> String {
    let bytes = of.bytes;
    let (top, one) = match bytes {
        4 => (31, "0x3F800000"),
        _ => (63, "0x3FF0000000000000"),
    };
    let bits = 8 * bytes;
    let mut text = format!(
        "{HEAD}.visible .entry {ENTRY}(
  .param .u64 to,
  .param .u64 table,
  .param .u32 streams,
  .param .u32 count,
  .param .u32 step,
  .param .u32 sample
)
{{
{}  .reg .b64 %table;
  .reg .b32 %streams, %low, %high, %middle, %first;
  ld.param.u64 %to, [to];
  ld.param.u64 %table, [table];
  ld.param.u32 %streams, [streams];
  ld.param.u32 %count, [count];
{THREAD}  mul.lo.u32 %entry, %thread, {LANES};
  setp.ge.u32 %out, %entry, %count;
  @%out ret;
  shr.u32 %group, %thread, {};
  mov.u32 %low, 0;
  mov.u32 %high, %streams;
halve:
  sub.u32 %middle, %high, %low;
  setp.le.u32 %out, %middle, 1;
  @%out bra found;
  add.u32 %middle, %low, %high;
  shr.u32 %middle, %middle, 1;
  mad.wide.u32 %at, %middle, 4, %table;
  ld.global.u32 %first, [%at];
  setp.le.u32 %p, %first, %group;
  @%p mov.u32 %low, %middle;
  @!%p mov.u32 %high, %middle;
  bra halve;
found:
  mad.wide.u32 %at, %low, 4, %table;
  ld.global.u32 %first, [%at];
  sub.u32 %c0, %group, %first;
  mov.u32 %c1, 0;
  ld.param.u32 %c2, [step];
  ld.param.u32 %c3, [sample];
  add.u32 %low, %low, %low;
  add.u32 %low, %low, %streams;
  mad.wide.u32 %at, %low, 4, %table;
  ld.global.u32 %k0, [%at];
  ld.global.u32 %k1, [%at+4];
{}  and.b32 %lane, %thread, {};
  shr.u32 %l0, %lane, 3;
  mov.u32 %word, %c0;
",
        registers(of),
        (SIGNS / LANES).ilog2(),
        philox(),
        SIGNS / LANES - 1,
    );
    for word in 1..4 {
        let _ = write!(
            text,
            "  setp.eq.u32 %p, %l0, {word};
  @%p mov.u32 %word, %c{word};
"
        );
    }
    text += "  and.b32 %lane, %lane, 7;
  shl.b32 %lane, %lane, 2;
  shr.u32 %word, %word, %lane;
";
    let _ = writeln!(text, "  mad.wide.u32 %at, %entry, {bytes}, %to;");
    for lane in 0..LANES {
        // A bit of the word becomes the sign of a one.
        let _ = write!(
            text,
            "  cvt.u{bits}.u32 %bits, %word;
  shl.b{bits} %bits, %bits, {top};
  or.b{bits} %bits, %bits, {one};
  st.global.b{bits} [%at+{}], %bits;
  shr.u32 %word, %word, 1;
",
            lane * bytes
        );
    }
    text + "  ret;\n}\n"
}
