//! docs/CANDLE_OPS.md.

use super::measure::{Level, Measured, Row};
use super::{core, nn, ours};
use anyhow::{Context, Result, ensure};
use std::fmt::Write as _;
use std::path::Path;

const HEAD: &str = "# candle's operations, at first and second order

Which operations of candle 0.11.1 a model may call whose gradient and Hessian-vector products are wanted. Written by `UPDATE_DOCS=1 cargo test -p tests candle_ops` from what
that test measured: every row is a small program in f64 (f32 where it says so), nonlinear in what the operation gives; its gradient, and its Hessian-vector product by `adahessian::Hessian`,
are held against differences of the loss alone. The test fails when a row here is no longer what it measures.

| it says | that is |
|---|---|
| right | to the digits that differences have |
| right to 6 digits | candle's derivative has constants of six digits: enough to train with, not to verify with |
| **cut off, silently** | variables below get no gradient, or too small a one where there is another way around, and no error. `backward_step` names variables without any on the first step; `check::audit` finds the rest |
| **wrong, silently** | another number, and no error: `check::audit` finds it |
| error | candle has no derivative here and says so |
| - | not reached: the level below failed |

";

const TAIL: &str = "## What has no row

* Tensors of whole numbers or of a constant (`zeros`, `arange`, `eye`, `tril2`, `one_hot`, comparisons, `argmax`): nothing to differentiate. `detach` cuts on purpose.
* `dropout`, `Dropout`, `rand_like`, `randn_like`, `gumbel_softmax`: candle's generator on the CPU cannot be seeded, so a loss with them is another function at each call, and a step with several passes is not repeatable. `adahessian::ops::dropout` is a
  function of (seed, step, name).
* `slice_set`, `scatter_set`, `scatter_add_set`, `zero_set`, `const_set`, `Var::set`, the key/value caches (`kv_cache`): they write into memory that a graph may refer to. Nothing sees that; do not train through them.
* `ops::sdpa` (Metal), `moe`, products with quantised matrices: for inference, without derivatives.
";

type Section = (&'static str, Vec<Row>);

fn sections() -> Vec<Section> {
    vec![
        ("candle_core: entry by entry", core::elementwise()),
        ("candle_core: sums and products", core::sums_and_products()),
        ("candle_core: shapes", core::shapes()),
        ("candle_core: indices", core::indices()),
        (
            "candle_core: convolution, pooling, upsampling",
            core::convolutions(),
        ),
        ("candle_nn: activations and softmax", nn::activations()),
        ("candle_nn: normalisation", nn::norms()),
        ("candle_nn: rotary positions", nn::positions()),
        ("candle_nn: layers", nn::layers()),
        ("candle_nn: losses", nn::losses()),
        ("adahessian, in their place", ours::rows()),
    ]
}

fn line(row: &Row, measured: &Measured) -> Result<String> {
    let right = measured.first.is_right() && measured.second.is_right();
    ensure!(
        right || !row.instead.is_empty(),
        "{}: {} and {}, so the row must say what to use instead",
        row.call,
        measured.first,
        measured.second
    );
    ensure!(
        !right || row.instead.is_empty(),
        "{} is right now at both levels: `instead` can go, and what was built to avoid it",
        row.call
    );
    let dtype = match row.dtype {
        candle_core::DType::F64 => "",
        _ => " (f32)",
    };
    let (first, second, instead) = (&measured.first, &measured.second, row.instead);
    Ok(format!(
        "| `{}`{dtype} | {first} | {second} | {instead} |\n",
        row.call
    ))
}

fn page() -> Result<(String, Vec<String>)> {
    let (mut page, mut problems) = (String::from(HEAD), Vec::new());
    for (title, rows) in sections() {
        write!(
            page,
            "## {title}\n\n| | first order | second order | use instead |\n|---|---|---|---|\n"
        )?;
        for row in rows {
            let measured = row.measure().with_context(|| row.call.to_string())?;
            match line(&row, &measured) {
                Ok(line) => page.push_str(&line),
                Err(problem) => problems.push(format!("{problem}: {:?}", measured.said)),
            }
            if let Some(said) = measured.said {
                println!("{}: {said}", row.call);
                // What candle refuses comes with the way out, not with a backtrace.
                ensure!(said.lines().count() <= 2, "{}: {said}", row.call);
            }
        }
        page.push('\n');
    }
    page.push_str(TAIL);
    Ok((page, problems))
}

#[test]
fn the_page_of_candles_operations_says_what_they_do() -> Result<()> {
    let (page, problems) = page()?;
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/CANDLE_OPS.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page)?;
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let differ = page.lines().zip(written.lines()).find(|(a, b)| a != b);
    ensure!(
        page == written,
        "docs/CANDLE_OPS.md is not what was measured (UPDATE_DOCS=1 writes it): {differ:?}"
    );
    Ok(())
}

/// Everything that this library offers in place of something else is right at both levels.
#[test]
fn the_replacements_are_right() -> Result<()> {
    for row in ours::rows() {
        let Measured {
            first,
            second,
            said,
        } = row.measure()?;
        assert_eq!(
            (first, second),
            (Level::Right, Level::Right),
            "{}: {said:?}",
            row.call
        );
    }
    Ok(())
}
