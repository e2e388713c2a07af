//! The passes on a backend of which the engine knows nothing: bfloat16, in vectors of its own.

use super::handle::Fused;
use super::op::Values;
use super::{Array, Backend, Gradients, Held, Inputs, Kernel, Op, Output, Point, node};
use crate::error::{Error, Result};
use crate::{Hessian, NamedVars, VarVec};
use candle_core::{CpuStorage, DType, Device, Storage, Tensor, Var};
use half::bf16;

struct Short;

impl Backend for Short {
    type Numbers = [bf16];
    type Buffer = Vec<bf16>;
    type View<'a> = Vec<bf16>;

    fn expect(x: &Tensor) -> Result<()> {
        match x.dtype() {
            DType::BF16 => Ok(()),
            got => Err(Error::Engine {
                what: format!("{got:?}"),
            }),
        }
    }

    fn length(numbers: &[bf16]) -> usize {
        numbers.len()
    }

    fn view(buffer: &Vec<bf16>) -> Vec<bf16> {
        buffer.clone()
    }

    fn owned<'a>(buffer: Vec<bf16>) -> Self::View<'a> {
        buffer
    }

    fn view_tensor(x: &Tensor) -> Result<Vec<bf16>> {
        Self::expect(x)?;
        Ok(x.flatten_all()?.to_vec1()?)
    }

    fn copy(x: &Tensor) -> Result<Vec<bf16>> {
        Self::view_tensor(x)
    }

    fn zeros(like: &Tensor) -> Result<Vec<bf16>> {
        Ok(vec![bf16::ZERO; like.elem_count()])
    }

    fn add_assign(to: &mut Vec<bf16>, part: &Vec<bf16>) -> Result<()> {
        to.iter_mut().zip(part).for_each(|(to, part)| *to += part);
        Ok(())
    }

    fn storage(numbers: &[bf16]) -> Result<Storage> {
        Self::into_storage(numbers.to_vec())
    }

    fn into_storage(buffer: Vec<bf16>) -> Result<Storage> {
        Ok(Storage::Cpu(CpuStorage::BF16(buffer)))
    }
}

/// Σ x², as in the example of [`Op`].
struct Squares;

impl Op for Squares {
    fn name(&self) -> &'static str {
        "squares"
    }
    fn shape(&self, _: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(vec![])
    }
    fn composed(&self, x: &[Tensor]) -> Result<Tensor> {
        Ok(x[0].sqr()?.sum_all()?)
    }
}

fn output(numbers: Vec<bf16>) -> Output<Short> {
    Output {
        numbers,
        recompute: None,
    }
}

impl Kernel<Short> for Squares {
    type Saved = ();
    type Kept = ();
    type Deferred = Vec<bf16>;

    fn forward(&self, x: &Inputs<Short>, _: bool) -> Result<(Output<Short>, ())> {
        Ok((output(vec![x[0].iter().map(|x| x * x).sum()]), ()))
    }

    fn adjoint(
        &self,
        at: &Point<Short, ()>,
        gradient: Option<&[bf16]>,
        deferred: Option<Vec<bf16>>,
        _: &[bool],
        _: &mut Gradients<Short>,
    ) -> Result<(Gradients<Short>, ())> {
        let twice = gradient.map_or(bf16::ZERO, |g| g[0] + g[0]);
        let mut gx: Vec<bf16> = at.input(0)?.iter().map(|x| x * twice).collect();
        if let Some(part) = deferred {
            Short::add_assign(&mut gx, &part)?;
        }
        Ok((vec![Some(gx)], ()))
    }

    fn second_adjoint(
        &self,
        at: &Point<Short, ()>,
        gradient: &Array<Short>,
        _: &(),
        cotangents: &[Option<Held<Short>>],
    ) -> Result<(Output<Short>, Vec<bf16>)> {
        let v = cotangents[0].as_ref().map(Held::view).transpose()?;
        let v = v.unwrap_or_default();
        let along: bf16 = v.iter().zip(at.input(0)?).map(|(v, x)| v * x).sum();
        let g = gradient.view()?[0];
        let left = v.iter().map(|v| v * (g + g)).collect();
        Ok((output(vec![along + along]), left))
    }
}

/// L = (Σ x²)²: ∇L = 4 s x and H = 4 s I + 8 x xᵀ with s = Σ x².
#[test]
fn both_passes_on_another_backend() -> Result<()> {
    let small = |x: [f32; 2]| Tensor::new(&x, &Device::Cpu)?.to_dtype(DType::BF16);
    let x = Var::from_tensor(&small([1.0, 2.0])?)?;
    let vars = NamedVars::new([("x".to_string(), x.clone())])?;
    let inside = Fused::<Short>::enter(x.as_tensor())?;
    let loss = node::apply(Squares, &[&inside], &[])?.exit()?.sqr()?;
    let numbers = |v: &VarVec| v.tensors()[0].to_dtype(DType::F32)?.to_vec1::<f32>();
    assert_eq!(loss.to_dtype(DType::F32)?.to_scalar::<f32>()?, 25.0);
    let hessian = Hessian::of(&loss, &vars)?;
    assert_eq!(numbers(&hessian.gradient()?)?, [20.0, 40.0]);
    let z = VarVec::new(&vars, vec![small([1.0, -1.0])?])?;
    let product = crate::LinearOperator::apply(&hessian, &z)?;
    assert_eq!(numbers(&product)?, [12.0, -36.0]);
    Ok(())
}

/// A value that a kernel did not ask to keep is an error that names it.
#[test]
fn a_value_that_is_not_kept_is_an_error() {
    let values = Values::<Short> {
        name: "squares",
        inputs: vec![None],
        output: None,
        shapes: vec![&[2]],
    };
    let point = values.with(&());
    let error = point.input(0).unwrap_err().to_string();
    assert!(error.contains("squares") && error.contains("input 0") && error.contains("`reads`"));
    let error = point.output().unwrap_err().to_string();
    assert!(error.contains("its own value") && error.contains("`reads_value`"));
    assert!(point.optional(1).unwrap().is_none());
}

/// Kernels that get the number of their results wrong, by level; the third gets all right.
struct Mistaken(u8);

impl super::LinearMap for Mistaken {
    fn name(&self) -> &'static str {
        "mistaken"
    }
    fn shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(inputs[0].to_vec())
    }
    fn composed(&self, x: &[Tensor]) -> Result<Tensor> {
        Ok(x[0].clone())
    }
    fn apply<T: crate::numeric::Real>(&self, _: &[Option<&[T]>]) -> crate::numeric::Buffer<T> {
        crate::numeric::Buffer::zeroed(if self.0 == 0 { 1 } else { 2 })
    }
    fn transposed<T: crate::numeric::Real>(
        &self,
        _: &[T],
        _: usize,
        _: usize,
    ) -> crate::numeric::Buffer<T> {
        crate::numeric::Buffer::zeroed(if self.0 == 1 { 3 } else { 2 })
    }
}

#[test]
fn results_of_the_wrong_length_are_errors() -> Result<()> {
    let x = Var::new(&[1f32, 2.0], &Device::Cpu)?;
    let error = super::linear_map(Mistaken(0), &[x.as_tensor()]).unwrap_err();
    assert!(
        error.to_string().contains("a value of 1 numbers"),
        "{error}"
    );
    let y = super::linear_map(Mistaken(1), &[x.as_tensor()])?.exit()?;
    let error = crate::backward(&y.sum_all()?).unwrap_err().to_string();
    assert!(
        error.contains("mistaken") && error.contains("a gradient of 3 numbers"),
        "{error}"
    );
    Ok(())
}

/// A pass of candle's own in which an operation failed, and then one of another loss over the same graph: what the first
/// one left at `x` is not taken for the second one's.
#[test]
fn a_pass_does_not_go_on_with_what_a_failed_one_left() -> Result<()> {
    let x = Var::new(&[1f32, 2.0], &Device::Cpu)?;
    let inside = super::Handle::enter(x.as_tensor())?;
    let of_x = |times: u8| super::linear_map(Mistaken(times), &[&inside]);
    let (fails, works, other) = (of_x(1)?, of_x(2)?, of_x(2)?);
    let failing = (fails.exit()?.sum_all()? + works.exit()?.sum_all()?)?;
    let error = failing.backward().map(drop).unwrap_err().to_string();
    assert!(error.contains("mistaken"), "{error}");
    let error = (other.exit()?.sum_all()?.backward().map(drop)).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("compute the loss again"), "{error}");
    // Computed again it is right, on the same thread.
    let loss = super::linear_map(Mistaken(2), &[x.as_tensor()])?.exit()?;
    let grads = loss.sum_all()?.backward()?;
    let gradient = grads.get(&x).map(Tensor::to_vec1::<f32>).transpose()?;
    assert_eq!(gradient, Some(vec![0.0, 0.0]));
    Ok(())
}
