//! The kernel of listed rows as text in PTX: a thread for each number of the result.

use crate::numeric::traced::assembly::{ENTRY, HEAD, Type, literal};

/// Parameters: addresses of the matrix, of the result and of the table (the lists' starts, then their rows), lists,
/// numbers of a row, and the weights of all entries, as an address, or the one of all.
pub(super) fn sums(weighted: bool, of: Type) -> String {
    let Type { name, bytes } = of;
    let (parameter, loaded, weight) = match weighted {
        true => (
            ".param .u64 weights".to_string(),
            "  ld.param.u64 %weights, [weights];\n".to_string(),
            format!(
                "  mad.wide.u32 %at, %entry, {bytes}, %weights;\n  ld.global.{name} %weight, [%at];\n"
            ),
        ),
        false => (
            format!(".param .{name} weight"),
            format!("  ld.param.{name} %weight, [weight];\n"),
            String::new(),
        ),
    };
    format!(
        "{HEAD}.visible .entry {ENTRY}(
  .param .u64 from,
  .param .u64 to,
  .param .u64 table,
  .param .u32 lists,
  .param .u32 width,
  {parameter}
)
{{
  .reg .b64 %from, %to, %table, %rows, %at, %weights;
  .reg .b32 %lists, %width, %number, %block, %size, %list, %column, %entry, %end, %row;
  .reg .{name} %value, %weight, %sum;
  .reg .pred %out;
  ld.param.u64 %from, [from];
  ld.param.u64 %to, [to];
  ld.param.u64 %table, [table];
  ld.param.u32 %lists, [lists];
  ld.param.u32 %width, [width];
{loaded}  mov.u32 %number, %tid.x;
  mov.u32 %block, %ctaid.x;
  mov.u32 %size, %ntid.x;
  mad.lo.u32 %number, %block, %size, %number;
  div.u32 %list, %number, %width;
  setp.ge.u32 %out, %list, %lists;
  @%out ret;
  mul.lo.u32 %column, %list, %width;
  sub.u32 %column, %number, %column;
  mad.wide.u32 %from, %column, {bytes}, %from;
  mad.wide.u32 %at, %list, 4, %table;
  ld.global.u32 %entry, [%at];
  ld.global.u32 %end, [%at+4];
  mad.wide.u32 %rows, %lists, 4, %table;
  add.u64 %rows, %rows, 4;
  mul.lo.u32 %size, %width, {bytes};
  mov.{name} %sum, {};
next:
  setp.ge.u32 %out, %entry, %end;
  @%out bra done;
  mad.wide.u32 %at, %entry, 4, %rows;
  ld.global.u32 %row, [%at];
  mad.wide.u32 %at, %row, %size, %from;
  ld.global.{name} %value, [%at];
{weight}  mul.rn.{name} %value, %value, %weight;
  add.rn.{name} %sum, %sum, %value;
  add.u32 %entry, %entry, 1;
  bra next;
done:
  mad.wide.u32 %at, %number, {bytes}, %to;
  st.global.{name} [%at], %sum;
  ret;
}}
",
        literal(0.0, of)
    )
}
