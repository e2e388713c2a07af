//! The kernels of columns as text in PTX: one thread for each number of the result. Places off an image are told by
//! one unsigned comparison, for they are negative, and so beyond any size, or too large.

use crate::numeric::traced::assembly::{ENTRY, HEAD, Type, literal};

/// Parameters: addresses of what is read and written, the number of results, the sizes.
fn parameters() -> String {
    let sizes = [
        "count",
        "height",
        "width",
        "rows",
        "positions",
        "taps_down",
        "taps_across",
        "stride",
        "padding",
        "dilation",
    ];
    let params: String = sizes
        .iter()
        .map(|size| format!(",\n  .param .u32 {size}"))
        .collect();
    let loads: String = sizes
        .iter()
        .map(|size| format!("  ld.param.u32 %{size}, [{size}];\n"))
        .collect();
    let registers: Vec<String> = sizes.iter().map(|size| format!("%{size}")).collect();
    format!(
        "{HEAD}.visible .entry {ENTRY}(
  .param .u64 from,
  .param .u64 to{params}
)
{{
  .reg .b64 %from, %to, %at;
  .reg .b32 {};
  .reg .b32 %number, %block, %size, %rest, %image, %y, %x, %tap_y, %tap_x, %row, %position, %place;
  .reg .pred %out, %off;
{loads}  ld.param.u64 %from, [from];
  ld.param.u64 %to, [to];
  mov.u32 %number, %tid.x;
  mov.u32 %block, %ctaid.x;
  mov.u32 %size, %ntid.x;
  mad.lo.u32 %number, %block, %size, %number;
  setp.ge.u32 %out, %number, %count;
  @%out ret;
",
        registers.join(", ")
    )
}

/// `value` becomes what is left of it after whole multiples of `size`, `rest` how many there are.
fn divided(value: &str, size: &str, rest: &str) -> String {
    format!(
        "  div.u32 {rest}, {value}, {size};
  mul.lo.u32 %place, {rest}, {size};
  sub.u32 {value}, {value}, %place;
"
    )
}

/// Results [N·C, KH, KW, OH, OW] of images [N·C, H, W].
pub(super) fn columns(of: Type) -> String {
    let Type { name, bytes } = of;
    let places = [
        "  mov.u32 %position, %number;\n".to_string(),
        divided("%position", "%positions", "%row"),
        divided("%row", "%rows", "%tap_x"),
        divided("%tap_x", "%taps_across", "%tap_y"),
        divided("%tap_y", "%taps_down", "%image"),
    ];
    format!(
        "{}  .reg .{name} %value;
{}  mul.lo.u32 %y, %row, %stride;
  mad.lo.u32 %y, %tap_y, %dilation, %y;
  sub.u32 %y, %y, %padding;
  mul.lo.u32 %x, %position, %stride;
  mad.lo.u32 %x, %tap_x, %dilation, %x;
  sub.u32 %x, %x, %padding;
  mov.{name} %value, {};
  setp.ge.u32 %off, %y, %height;
  @%off bra store;
  setp.ge.u32 %off, %x, %width;
  @%off bra store;
  mad.lo.u32 %place, %image, %height, %y;
  mad.lo.u32 %place, %place, %width, %x;
  mad.wide.u32 %at, %place, {bytes}, %from;
  ld.global.{name} %value, [%at];
store:
  mad.wide.u32 %at, %number, {bytes}, %to;
  st.global.{name} [%at], %value;
  ret;
}}
",
        parameters(),
        places.concat(),
        literal(0.0, of)
    )
}

/// Images [N·C, H, W], every pixel the sum of its columns' entries, in the order of the taps.
pub(super) fn images(of: Type) -> String {
    let Type { name, bytes } = of;
    let places = [
        "  mov.u32 %x, %number;\n".to_string(),
        divided("%x", "%width", "%y"),
        divided("%y", "%height", "%image"),
    ];
    format!(
        "{}  .reg .{name} %value, %sum;
{}  add.u32 %y, %y, %padding;
  add.u32 %x, %x, %padding;
  mov.{name} %sum, {};
  mov.u32 %tap_y, 0;
down:
  setp.ge.u32 %out, %tap_y, %taps_down;
  @%out bra done;
  mul.lo.u32 %rest, %tap_y, %dilation;
  sub.u32 %rest, %y, %rest;
  div.u32 %row, %rest, %stride;
  mul.lo.u32 %place, %row, %stride;
  setp.ne.u32 %off, %place, %rest;
  @%off bra next_down;
  setp.ge.u32 %off, %row, %rows;
  @%off bra next_down;
  mov.u32 %tap_x, 0;
across:
  setp.ge.u32 %out, %tap_x, %taps_across;
  @%out bra next_down;
  mul.lo.u32 %rest, %tap_x, %dilation;
  sub.u32 %rest, %x, %rest;
  div.u32 %position, %rest, %stride;
  mul.lo.u32 %place, %position, %stride;
  setp.ne.u32 %off, %place, %rest;
  @%off bra next_across;
  setp.ge.u32 %off, %position, %positions;
  @%off bra next_across;
  mad.lo.u32 %place, %image, %taps_down, %tap_y;
  mad.lo.u32 %place, %place, %taps_across, %tap_x;
  mad.lo.u32 %place, %place, %rows, %row;
  mad.lo.u32 %place, %place, %positions, %position;
  mad.wide.u32 %at, %place, {bytes}, %from;
  ld.global.{name} %value, [%at];
  add.rn.{name} %sum, %sum, %value;
next_across:
  add.u32 %tap_x, %tap_x, 1;
  bra across;
next_down:
  add.u32 %tap_y, %tap_y, 1;
  bra down;
done:
  mad.wide.u32 %at, %number, {bytes}, %to;
  st.global.{name} [%at], %sum;
  ret;
}}
",
        parameters(),
        places.concat(),
        literal(0.0, of)
    )
}
