//! The kernel that changes rows, as text in PTX: a thread for each row, in the order and rounding of the CPU's
//! `Row::update`.

use crate::numeric::traced::assembly::{ENTRY, HEAD, Type, literal};
use crate::sparse::update::{Accumulator, SparseRule};

/// What a kernel is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub rule: Rule,
    /// Whether the table is stored in bf16.
    pub half: bool,
    pub of: Type,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Rule {
    Sgd,
    /// Adagrad with an accumulator for every number.
    Elements,
    /// Adagrad with one for the row.
    Rows,
}

impl Rule {
    #[cfg_attr(not(feature = "cuda"), allow(dead_code))]
    pub fn of(rule: SparseRule) -> Self {
        match rule {
            SparseRule::Sgd => Self::Sgd,
            SparseRule::Adagrad { accumulator, .. } => match accumulator {
                Accumulator::Elements => Self::Elements,
                Accumulator::Rows => Self::Rows,
            },
        }
    }
}

/// Parameters: addresses of the table, the accumulators, the rows' numbers, their gradients, and of the squared
/// changes in f64; how many rows, numbers of a row; rate, eps, one over the numbers of a row.
pub(super) fn step(key: &Key) -> String {
    let Key { rule, half, of } = *key;
    let Type { name, bytes } = of;
    let cell = if half { 2 } else { bytes };
    format!(
        "{HEAD}.visible .entry {ENTRY}(
  .param .u64 table,
  .param .u64 sums,
  .param .u64 rows,
  .param .u64 gradient,
  .param .u64 changes,
  .param .u32 count,
  .param .u32 width,
  .param .{name} lr,
  .param .{name} eps,
  .param .{name} share
)
{{
  .reg .b64 %table, %sums, %rows, %gradient, %changes, %at;
  .reg .b32 %count, %width, %number, %block, %size, %row, %column, %bits, %odd, %quiet;
  .reg .b16 %half;
  .reg .{name} %lr, %eps, %share, %g, %sum, %square, %step, %before, %after;
  .reg .f64 %change, %difference;
  .reg .pred %out, %nan;
  ld.param.u32 %count, [count];
  ld.param.u32 %width, [width];
  mov.u32 %number, %tid.x;
  mov.u32 %block, %ctaid.x;
  mov.u32 %size, %ntid.x;
  mad.lo.u32 %number, %block, %size, %number;
  setp.ge.u32 %out, %number, %count;
  @%out ret;
  ld.param.u64 %table, [table];
  ld.param.u64 %sums, [sums];
  ld.param.u64 %rows, [rows];
  ld.param.u64 %gradient, [gradient];
  ld.param.u64 %changes, [changes];
  ld.param.{name} %lr, [lr];
  ld.param.{name} %eps, [eps];
  ld.param.{name} %share, [share];
  mad.wide.u32 %at, %number, 4, %rows;
  ld.global.u32 %row, [%at];
  mul.lo.u32 %size, %width, {cell};
  mad.wide.u32 %table, %row, %size, %table;
  mul.lo.u32 %size, %width, {bytes};
  mad.wide.u32 %gradient, %number, %size, %gradient;
{}  mov.f64 %change, 0d0000000000000000;
  mov.u32 %column, 0;
next:
  setp.ge.u32 %out, %column, %width;
  @%out bra done;
  ld.global.{name} %g, [%gradient];
{}{}  sub.rn.{name} %after, %before, %step;
{}  sub.rn.{name} %after, %after, %before;
{}  mul.rn.f64 %difference, %difference, %difference;
  add.rn.f64 %change, %change, %difference;
  add.u64 %gradient, %gradient, {bytes};
  add.u64 %table, %table, {cell};
  add.u32 %column, %column, 1;
  bra next;
done:
  mad.wide.u32 %at, %number, 8, %changes;
  st.global.f64 [%at], %change;
  ret;
}}
",
        before(rule, of),
        distance(rule, of),
        loaded(half, of),
        stored(half, of),
        match bytes {
            8 => "  mov.f64 %difference, %after;\n",
            _ => "  cvt.f64.f32 %difference, %after;\n",
        },
    )
}

/// Where this row's accumulators are, and of one for the row what it becomes.
fn before(rule: Rule, of: Type) -> String {
    let Type { name, bytes } = of;
    match rule {
        Rule::Sgd => String::new(),
        Rule::Elements => "  mad.wide.u32 %sums, %row, %size, %sums;\n".into(),
        Rule::Rows => format!(
            "  mad.wide.u32 %sums, %row, {bytes}, %sums;
  mov.{name} %sum, {zero};
  mov.u64 %at, %gradient;
  mov.u32 %column, 0;
squares:
  setp.ge.u32 %out, %column, %width;
  @%out bra squared;
  ld.global.{name} %g, [%at];
  mul.rn.{name} %square, %g, %g;
  add.rn.{name} %sum, %sum, %square;
  add.u64 %at, %at, {bytes};
  add.u32 %column, %column, 1;
  bra squares;
squared:
  mul.rn.{name} %square, %sum, %share;
  ld.global.{name} %sum, [%sums];
  add.rn.{name} %sum, %sum, %square;
  st.global.{name} [%sums], %sum;
",
            zero = literal(0.0, of)
        ),
    }
}

/// How far a number goes.
fn distance(rule: Rule, of: Type) -> String {
    let Type { name, bytes } = of;
    let own = format!(
        "  ld.global.{name} %sum, [%sums];
  mul.rn.{name} %square, %g, %g;
  add.rn.{name} %sum, %sum, %square;
  st.global.{name} [%sums], %sum;
  add.u64 %sums, %sums, {bytes};
"
    );
    let adagrad = format!(
        "  sqrt.rn.{name} %step, %sum;
  add.rn.{name} %step, %step, %eps;
  div.rn.{name} %step, %g, %step;
  mul.rn.{name} %step, %step, %lr;
"
    );
    match rule {
        Rule::Sgd => format!("  mul.rn.{name} %step, %g, %lr;\n"),
        Rule::Elements => own + &adagrad,
        Rule::Rows => adagrad,
    }
}

fn loaded(half: bool, of: Type) -> String {
    match half {
        true => "  ld.global.b16 %half, [%table];
  cvt.u32.u16 %bits, %half;
  shl.b32 %bits, %bits, 16;
  mov.b32 %before, %bits;
"
        .into(),
        false => format!("  ld.global.{} %before, [%table];\n", of.name),
    }
}

/// `%after` is left as it was stored. bf16 is rounded to the nearest, of two as near to the even one; what is not a
/// number stays so.
fn stored(half: bool, of: Type) -> String {
    match half {
        true => "  setp.nan.f32 %nan, %after, %after;
  mov.b32 %bits, %after;
  or.b32 %quiet, %bits, 4194304;
  shr.u32 %odd, %bits, 16;
  and.b32 %odd, %odd, 1;
  add.u32 %bits, %bits, %odd;
  add.u32 %bits, %bits, 32767;
  selp.b32 %bits, %quiet, %bits, %nan;
  shr.u32 %bits, %bits, 16;
  cvt.u16.u32 %half, %bits;
  st.global.b16 [%table], %half;
  shl.b32 %bits, %bits, 16;
  mov.b32 %after, %bits;
"
        .into(),
        false => format!("  st.global.{} [%table], %after;\n", of.name),
    }
}
