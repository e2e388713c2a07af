//! Kernels as text in PTX, the assembly that every CUDA driver takes.
//!
//! One block of threads takes one row of a table: where an entry's arrays begin, how many entries there are, and
//! the numbers that they share. So a kernel runs over many variables, wherever their memory is, in one launch.
//! Every operation rounds by itself (`.rn`: no product is fused with a sum), as on the CPU. Sums are added up in
//! f64, thread by thread and then in a tree, in an order that nothing changes.

use super::program::{Shape, Sum};
use crate::numeric::traced::assembly::{ENTRY, F64, HEAD, Type, arithmetic};
use crate::numeric::traced::{Instruction, Register};
use std::fmt::{self, Write};

/// Threads of a block.
pub(crate) const THREADS: usize = 256;
/// Words of eight bytes that a row has: the arrays' addresses, the shared numbers, the number of entries.
pub(crate) fn words(shape: &Shape) -> usize {
    shape.arrays + shape.shared + 1
}

/// How many sums and largest numbers a block leaves.
pub(crate) fn results(shape: &Shape) -> usize {
    shape.sums.len() + usize::from(shape.largest.is_some())
}

/// The kernel of a shape: parameters are the table's address, that of the results (which has those of all blocks for
/// the first sum, then for the second, the largest last), how many entries there are, for who counts what launches
/// move (`scripts/cuda_calls.c`), and the constants.
pub(crate) fn kernel(shape: &Shape, constants: usize, of: Type) -> String {
    let mut text = String::from(HEAD);
    // Writing to a string does not fail.
    let _ = write_kernel(&mut text, shape, constants, of);
    text
}

fn write_kernel(to: &mut String, shape: &Shape, constants: usize, of: Type) -> fmt::Result {
    let results = results(shape);
    writeln!(to, ".visible .entry {ENTRY}(")?;
    write!(
        to,
        "  .param .u64 table,\n  .param .u64 results,\n  .param .u64 entries"
    )?;
    for number in 0..constants {
        write!(to, ",\n  .param .{} c{number}", of.name)?;
    }
    writeln!(to, "\n)\n{{")?;
    registers(to, shape, of)?;
    if results > 0 {
        let bytes = results * THREADS * 8;
        writeln!(to, "  .shared .align 8 .b8 parts[{bytes}];")?;
    }
    row(to, shape)?;
    for (number, instruction) in shape.instructions.iter().enumerate() {
        match instruction {
            Instruction::Constant(k) => {
                writeln!(to, "  ld.param.{} %x{number}, [c{k}];", of.name)?;
            }
            // As many bytes of the word as the type has: memory begins with the lowest.
            Instruction::Shared(k) => {
                let place = 8 * (shape.arrays + k);
                let name = of.name;
                writeln!(to, "  ld.global.{name} %x{number}, [%row+{place}];")?;
            }
            _ => {}
        }
    }
    entries(to, shape, of)?;
    if results > 0 {
        tree(to, shape)?;
    }
    writeln!(to, "done:\n  ret;\n}}")
}

fn registers(to: &mut String, shape: &Shape, of: Type) -> fmt::Result {
    let (count, arrays) = (shape.instructions.len(), shape.arrays);
    writeln!(to, "  .reg .{} %x<{count}>;", of.name)?;
    writeln!(to, "  .reg .f64 %sum<{}>;", results(shape).max(1))?;
    writeln!(to, "  .reg .f64 %wide, %other;")?;
    writeln!(to, "  .reg .b64 %array<{}>;", arrays.max(1))?;
    writeln!(
        to,
        "  .reg .b64 %row, %count, %i, %at, %place, %results, %block, %blocks;"
    )?;
    writeln!(to, "  .reg .b32 %thread, %number, %part;")?;
    writeln!(to, "  .reg .pred %p, %q;")
}

/// Where this block's arrays begin, and how many entries it has.
fn row(to: &mut String, shape: &Shape) -> fmt::Result {
    let words = words(shape);
    writeln!(to, "  ld.param.u64 %row, [table];")?;
    writeln!(to, "  mov.u32 %number, %ctaid.x;")?;
    writeln!(to, "  cvt.u64.u32 %block, %number;")?;
    writeln!(to, "  mov.u32 %number, %nctaid.x;")?;
    writeln!(to, "  cvt.u64.u32 %blocks, %number;")?;
    writeln!(to, "  mad.lo.u64 %row, %block, {}, %row;", 8 * words)?;
    for array in 0..shape.arrays {
        writeln!(to, "  ld.global.u64 %array{array}, [%row+{}];", 8 * array)?;
    }
    writeln!(to, "  ld.global.u64 %count, [%row+{}];", 8 * (words - 1))?;
    for sum in 0..results(shape) {
        writeln!(to, "  mov.f64 %sum{sum}, 0d0000000000000000;")?;
    }
    writeln!(to, "  mov.u32 %thread, %tid.x;")?;
    writeln!(to, "  cvt.u64.u32 %i, %thread;")
}

/// The loop over this thread's entries.
fn entries(to: &mut String, shape: &Shape, of: Type) -> fmt::Result {
    let Type { name, bytes } = of;
    writeln!(
        to,
        "next:\n  setp.ge.u64 %p, %i, %count;\n  @%p bra behind;"
    )?;
    writeln!(to, "  mul.lo.u64 %at, %i, {bytes};")?;
    for (number, instruction) in shape.instructions.iter().enumerate() {
        match *instruction {
            Instruction::Entry(array) => {
                writeln!(to, "  add.u64 %place, %array{array}, %at;")?;
                writeln!(to, "  ld.global.{name} %x{number}, [%place];")?;
            }
            Instruction::Constant(_) | Instruction::Shared(_) => {}
            instruction => arithmetic(to, number, instruction, of)?,
        }
    }
    for (array, register) in &shape.stores {
        writeln!(to, "  add.u64 %place, %array{array}, %at;")?;
        writeln!(to, "  st.global.{name} [%place], %x{register};")?;
    }
    for (sum, what) in shape.sums.iter().enumerate() {
        let (Sum::Of(register) | Sum::OfSquare(register)) = *what;
        widened(to, register, of)?;
        if let Sum::OfSquare(_) = what {
            writeln!(to, "  mul.rn.f64 %wide, %wide, %wide;")?;
        }
        writeln!(to, "  add.rn.f64 %sum{sum}, %sum{sum}, %wide;")?;
    }
    if let Some(register) = shape.largest {
        let sum = shape.sums.len();
        widened(to, register, of)?;
        writeln!(to, "  max.f64 %sum{sum}, %sum{sum}, %wide;")?;
    }
    writeln!(to, "  add.u64 %i, %i, {THREADS};\n  bra next;\nbehind:")
}

fn widened(to: &mut String, register: Register, of: Type) -> fmt::Result {
    match of == F64 {
        true => writeln!(to, "  mov.f64 %wide, %x{register};"),
        false => writeln!(to, "  cvt.f64.{} %wide, %x{register};", of.name),
    }
}

/// The threads' sums become the block's: half of the threads add the other half's, and so on.
fn tree(to: &mut String, shape: &Shape) -> fmt::Result {
    let results = results(shape);
    writeln!(to, "  mov.u32 %part, parts;")?;
    writeln!(to, "  mad.lo.u32 %part, %thread, 8, %part;")?;
    for sum in 0..results {
        let place = sum * THREADS * 8;
        writeln!(to, "  st.shared.f64 [%part+{place}], %sum{sum};")?;
    }
    let mut half = THREADS / 2;
    while half > 0 {
        writeln!(to, "  bar.sync 0;")?;
        writeln!(to, "  setp.ge.u32 %p, %thread, {half};")?;
        writeln!(to, "  @%p bra above{half};")?;
        for sum in 0..results {
            let (place, other) = (sum * THREADS * 8, (sum * THREADS + half) * 8);
            let operation = match sum == shape.sums.len() {
                true => "max.f64",
                false => "add.rn.f64",
            };
            writeln!(to, "  ld.shared.f64 %wide, [%part+{place}];")?;
            writeln!(to, "  ld.shared.f64 %other, [%part+{other}];")?;
            writeln!(to, "  {operation} %wide, %wide, %other;")?;
            writeln!(to, "  st.shared.f64 [%part+{place}], %wide;")?;
        }
        writeln!(to, "above{half}:")?;
        half /= 2;
    }
    writeln!(to, "  setp.ne.u32 %p, %thread, 0;\n  @%p bra done;")?;
    writeln!(to, "  ld.param.u64 %results, [results];")?;
    writeln!(to, "  mad.lo.u64 %results, %block, 8, %results;")?;
    writeln!(to, "  shl.b64 %blocks, %blocks, 3;")?;
    for sum in 0..results {
        let place = sum * THREADS * 8;
        writeln!(to, "  ld.shared.f64 %wide, [%part+{place}];")?;
        writeln!(to, "  st.global.f64 [%results], %wide;")?;
        writeln!(to, "  add.u64 %results, %results, %blocks;")?;
    }
    Ok(())
}

/// Words of a row of [`averages`]: the addresses of D and of its averages, entries, entries of a block of D.
pub(crate) const AVERAGE_WORDS: usize = 4;

/// The kernel that averages D over its blocks, |D| where it is `absolute`; parameters are the table's address and how
/// many entries there are, as above. A row has whole blocks, but for the last one of a variable. A thread takes whole
/// blocks, and adds them up in f64.
pub(crate) fn averages(of: Type, absolute: bool) -> String {
    let Type { name, bytes } = of;
    let narrow = match of == F64 {
        true => "mov.f64".into(),
        false => format!("cvt.rn.{name}.f64"),
    };
    let widen = match of == F64 {
        true => "mov.f64".into(),
        false => format!("cvt.f64.{name}"),
    };
    let size = match absolute {
        true => "  abs.f64 %wide, %wide;\n",
        false => "",
    };
    let row = 8 * AVERAGE_WORDS;
    format!(
        "{HEAD}.visible .entry {ENTRY}(.param .u64 table, .param .u64 entries)
{{
  .reg .{name} %x;
  .reg .f64 %sum, %wide, %length;
  .reg .b64 %row, %block, %from, %to, %count, %run, %first, %i, %end, %at, %place, %stride;
  .reg .b32 %number;
  .reg .pred %p;
  ld.param.u64 %row, [table];
  mov.u32 %number, %ctaid.x;
  cvt.u64.u32 %block, %number;
  mad.lo.u64 %row, %block, {row}, %row;
  ld.global.u64 %from, [%row];
  ld.global.u64 %to, [%row+8];
  ld.global.u64 %count, [%row+16];
  ld.global.u64 %run, [%row+24];
  mul.lo.u64 %stride, %run, {THREADS};
  mov.u32 %number, %tid.x;
  cvt.u64.u32 %first, %number;
  mul.lo.u64 %first, %first, %run;
next:
  setp.ge.u64 %p, %first, %count;
  @%p bra done;
  add.u64 %end, %first, %run;
  min.u64 %end, %end, %count;
  mov.f64 %sum, 0d0000000000000000;
  mov.u64 %i, %first;
adding:
  mul.lo.u64 %at, %i, {bytes};
  add.u64 %place, %from, %at;
  ld.global.{name} %x, [%place];
  {widen} %wide, %x;
{size}  add.rn.f64 %sum, %sum, %wide;
  add.u64 %i, %i, 1;
  setp.lt.u64 %p, %i, %end;
  @%p bra adding;
  sub.u64 %i, %end, %first;
  cvt.rn.f64.u64 %length, %i;
  div.rn.f64 %sum, %sum, %length;
  {narrow} %x, %sum;
  mov.u64 %i, %first;
writing:
  mul.lo.u64 %at, %i, {bytes};
  add.u64 %place, %to, %at;
  st.global.{name} [%place], %x;
  add.u64 %i, %i, 1;
  setp.lt.u64 %p, %i, %end;
  @%p bra writing;
  add.u64 %first, %first, %stride;
  bra next;
done:
  ret;
}}
"
    )
}
