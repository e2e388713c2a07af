//! One layer or function: how it is made and called here, and in candle.

use adahessian::random::Stream;
use adahessian::{NamedVars, check};
use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use testing::{assert_close, twins};

type Make = Box<dyn Fn(VarBuilder, &Tensor) -> candle_core::Result<Tensor>>;

pub struct Case {
    pub name: &'static str,
    shape: Vec<usize>,
    ours: Make,
    theirs: Option<Make>,
    /// The input, where it is no variable.
    constant: Option<Tensor>,
}

/// Makes a layer with the builder and calls it with normal numbers of this shape.
pub fn case(
    name: &'static str,
    shape: &[usize],
    ours: impl Fn(VarBuilder, &Tensor) -> candle_core::Result<Tensor> + 'static,
) -> Case {
    Case {
        name,
        shape: shape.into(),
        ours: Box::new(ours),
        theirs: None,
        constant: None,
    }
}

impl Case {
    /// The same with candle_nn.
    pub fn like(
        mut self,
        theirs: impl Fn(VarBuilder, &Tensor) -> candle_core::Result<Tensor> + 'static,
    ) -> Self {
        self.theirs = Some(Box::new(theirs));
        self
    }

    /// Called with this instead.
    pub fn of(mut self, input: Tensor) -> Self {
        self.constant = Some(input);
        self
    }

    fn input(&self, map: &VarMap, dtype: DType) -> candle_core::Result<Tensor> {
        match &self.constant {
            Some(input) => Ok(input.clone()),
            None => builder(map, dtype).get(self.shape.as_slice(), "input"),
        }
    }

    /// Variables with values of their own, the layer's made by the first call.
    fn variables(&self, make: &Make, dtype: DType) -> Result<VarMap> {
        let map = VarMap::new();
        let input = self.input(&map, dtype)?;
        make(builder(&map, dtype), &input)?;
        for (name, var) in map.data().lock().expect("not poisoned").iter() {
            let stream = Stream::new(7, name, 0, 0);
            let values = stream.normal_tensor(var.dims(), DType::F64, &Device::Cpu)?;
            let values = match name.ends_with("running_var") {
                true => (values.sqr()? + 0.5)?,
                false => values,
            };
            var.set(&values.to_dtype(var.dtype())?)?;
        }
        Ok(map)
    }

    fn value(&self, make: &Make, map: &VarMap, dtype: DType) -> candle_core::Result<Tensor> {
        make(builder(map, dtype), &self.input(map, dtype)?)
    }

    /// The same variables and the same value as candle's, to rounding.
    pub fn is_candles(&self) -> Result<()> {
        let Some(theirs) = &self.theirs else {
            return Ok(());
        };
        let map = self.variables(&self.ours, DType::F64)?;
        let other = self.variables(theirs, DType::F64)?;
        ensure!(
            names(&map) == names(&other),
            "{:?} and {:?}",
            names(&map),
            names(&other)
        );
        let theirs = self.value(theirs, &other, DType::F64).context("candle's")?;
        let ours = self.value(&self.ours, &map, DType::F64)?;
        assert_close("value", &ours, &theirs, 1e-12)
    }

    fn checked(
        &self,
        check: impl Fn(&NamedVars, &dyn Fn() -> adahessian::Result<Tensor>) -> adahessian::Result<f64>,
    ) -> Result<()> {
        let map = self.variables(&self.ours, DType::F64)?;
        let loss = || twins::loss(&self.value(&self.ours, &map, DType::F64)?);
        let vars = NamedVars::from(&map).trained();
        let error = check(&vars, &loss)?;
        println!("{}: {} variables, to {error:.1e}", self.name, vars.len());
        Ok(())
    }

    pub fn gradient(&self) -> Result<()> {
        self.checked(|vars, loss| {
            check::all_reached(vars, loss)?;
            check::gradient(vars, 1e-6, loss)
        })
    }

    pub fn hessian(&self) -> Result<()> {
        self.checked(|vars, loss| check::hessian(vars, 1e-6, loss))
    }

    /// The value in f32 is that in f64.
    pub fn single(&self) -> Result<()> {
        if self
            .constant
            .as_ref()
            .is_some_and(|x| x.dtype() == DType::F64)
        {
            return Ok(());
        }
        let long = self.variables(&self.ours, DType::F64)?;
        let short = self.variables(&self.ours, DType::F32)?;
        let long = self.value(&self.ours, &long, DType::F64)?;
        let short = self.value(&self.ours, &short, DType::F32)?;
        assert_close("value", &short, &long, 1e-4)
    }

    /// The value in bf16 is about that in f32, and in bf16.
    pub fn half(&self) -> Result<()> {
        if self.constant.as_ref().is_some_and(|x| x.dtype().is_float()) {
            return Ok(());
        }
        let [long, short] = [DType::F32, DType::BF16].map(|dtype| {
            let map = self.variables(&self.ours, dtype)?;
            self.value(&self.ours, &map, dtype)
                .map_err(anyhow::Error::from)
        });
        let (long, short) = (long?, short?);
        ensure!(short.dtype() == DType::BF16, "{:?}", short.dtype());
        assert_close("value", &short, &long, 0.1)
    }
}

fn builder(map: &VarMap, dtype: DType) -> VarBuilder<'static> {
    VarBuilder::from_varmap(map, dtype, &Device::Cpu)
}

fn names(map: &VarMap) -> Vec<(String, Vec<usize>)> {
    let data = map.data().lock().expect("not poisoned");
    let mut names: Vec<_> = data
        .iter()
        .map(|(name, var)| (name.clone(), var.dims().to_vec()))
        .collect();
    names.sort();
    names
}
