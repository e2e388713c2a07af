//! exp, tanh and the normal distribution without branches, so that loops over them become vectors.
//!
//! The f32 forms are polynomials of our own fit, exp and tanh within 2 units in the last place, the
//! distribution within 1.2·10⁻⁷, as the tests state; the f64 forms are the standard library's and candle's, exact
//! to rounding. No fused multiply-add is used: the bits are the same on every processor.

/// c₀ + c₁x + c₂x² + …
#[inline(always)]
fn polynomial<const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    coefficients.iter().rev().fold(0.0, |sum, c| sum * x + c)
}

/// ln 2 in two parts; the first has few bits, so that its multiples are exact.
pub(super) const LN_2: (f32, f32) = (0.693_359_4, -2.121_944_4e-4);

/// eʳ.
pub(super) const EXP: [f32; 7] = [
    1.0,
    1.0,
    0.499_999_9,
    0.166_664_2,
    0.041_668_225,
    0.008_374_822,
    0.001_383_683,
];

/// eˣ = 2ⁿ eʳ with |r| ≤ ½ ln 2. 0 below e⁻⁸⁷, where f32 has lost digits anyway, infinity above e⁸⁸·⁷.
#[inline(always)]
pub(crate) fn exp_f32(x: f32) -> f32 {
    let clamped = match x > 89.0 {
        true => 89.0,
        false => x,
    };
    let clamped = match clamped < -88.0 {
        true => -88.0,
        false => clamped,
    };
    let n = (clamped * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = (clamped - n * LN_2.0) - n * LN_2.1;
    // In two factors: 2ⁿ alone can be beyond the largest number where eˣ is not.
    let half = (n * 0.5 + ROUND) - ROUND;
    let value = polynomial(r, EXP) * power_of_two(half) * power_of_two(n - half);
    match x < -87.0 {
        true => 0.0,
        false => value,
    }
}

/// 2ⁿ for a whole number n from -126 to 127.
#[inline(always)]
fn power_of_two(n: f32) -> f32 {
    // The sum's last bits are n + 127, the exponent's bits; the shift leaves no others.
    f32::from_bits((n + (ROUND + 127.0)).to_bits() << 23)
}

/// 1.5·2²³: adding and taking it away again rounds to a whole number.
pub(super) const ROUND: f32 = 12_582_912.0;

/// (tanh x - x) / x³ near 0 by powers of x².
pub(super) const TANH_NEAR: [f32; 6] = [
    -0.333_333_33,
    0.133_332_91,
    -0.053_956_355,
    0.021_746_223,
    -0.008_272_554,
    0.002_214_994_5,
];

/// tanh x: a polynomial near 0, (1 - e⁻²ˣ) / (1 + e⁻²ˣ) elsewhere.
#[inline(always)]
pub(crate) fn tanh_f32(x: f32) -> f32 {
    let square = x * x;
    let near = x + x * square * polynomial(square, TANH_NEAR);
    let decay = exp_f32(-2.0 * x.abs());
    let far = ((1.0 - decay) / (1.0 + decay)).copysign(x);
    match x.abs() < 0.65 {
        true => near,
        false => far,
    }
}

/// R(t)(1 + 2t) of [`normal_f32`] by powers of t/(t + 2).
pub(super) const RATIO: [f32; 11] = [
    1.0,
    1.743_239_9,
    -3.283_692_5,
    1.669_25,
    0.553_872_7,
    -0.485_113_05,
    0.016_345_015,
    -0.577_161_5,
    0.756_974_7,
    -0.282_606_77,
    0.017_183_535,
];

/// The normal distribution's Φ(x) and density φ(x).
///
/// With t = |x|/√2, Φ(-|x|) = ½ erfc t = ½ e^(-t²) R(t), and R is smooth: R(t)(1 + 2t) is a polynomial
/// in t/(t + 2), with the value 1 at 0.
#[inline(always)]
pub(crate) fn normal_f32(x: f32) -> (f32, f32) {
    let t = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    // From here on the tail is 0; the ratio of infinities would be no number.
    let t = match t > 20.0 {
        true => 20.0,
        false => t,
    };
    let decay = exp_f32(-0.5 * x * x);
    let ratio = polynomial(t / (t + 2.0), RATIO) / (1.0 + 2.0 * t);
    let tail = 0.5 * decay * ratio;
    let below = match x < 0.0 {
        true => tail,
        false => 1.0 - tail,
    };
    (below, decay * FRAC_1_SQRT_TAU as f32)
}

/// 1/√(2π)
const FRAC_1_SQRT_TAU: f64 = 0.398_942_280_401_432_7;

/// Φ and φ by candle's complementary error function.
pub(crate) fn normal_f64(x: f64) -> (f64, f64) {
    let below = 0.5 * candle_core::cpu::erf::erfc_f64(-x * std::f64::consts::FRAC_1_SQRT_2);
    (below, (-0.5 * x * x).exp() * FRAC_1_SQRT_TAU)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(from: f64, to: f64) -> impl Iterator<Item = f32> {
        (0..=200_000).map(move |i| (from + (to - from) * f64::from(i) / 200_000.0) as f32)
    }

    /// The largest error in units of the last place of the exact value.
    fn units(values: impl Iterator<Item = (f32, f64)>) -> f64 {
        let error = |(got, exact): (f32, f64)| {
            let unit = f64::from(f32::EPSILON) * exact.abs().max(f64::from(f32::MIN_POSITIVE));
            (f64::from(got) - exact).abs() / unit
        };
        // A maximum would lose what is no number.
        let known = |error: &f64| assert!(!error.is_nan());
        values.map(error).inspect(known).fold(0.0, f64::max)
    }

    #[test]
    fn exp_within_two_units() {
        let all = points(-86.9, 88.7).chain(points(-1.0, 1.0));
        let worst = units(all.map(|x| (exp_f32(x), f64::from(x).exp())));
        assert!(worst <= 2.0, "{worst}");
        assert_eq!(exp_f32(0.0), 1.0);
        assert_eq!(exp_f32(-1000.0), 0.0);
        assert_eq!(exp_f32(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp_f32(100.0), f32::INFINITY);
        assert!(exp_f32(f32::NAN).is_nan());
    }

    #[test]
    fn tanh_within_two_units() {
        let all = points(-12.0, 12.0).chain(points(-0.7, 0.7));
        let worst = units(all.map(|x| (tanh_f32(x), f64::from(x).tanh())));
        assert!(worst <= 2.0, "{worst}");
        assert_eq!(tanh_f32(100.0), 1.0);
        assert!(tanh_f32(f32::NAN).is_nan());
    }

    #[test]
    fn normal_distribution_to_seven_digits() {
        for x in points(-10.0, 10.0) {
            let (a, b) = normal_f32(x);
            let (c, d) = normal_f64(f64::from(x));
            let (below, density) = ((f64::from(a) - c).abs(), (f64::from(b) - d).abs());
            assert!(
                below <= 1.2e-7 && density <= 6e-8,
                "{x}: {below:e} {density:e}"
            );
        }
        assert!(normal_f32(f32::NAN).0.is_nan());
        let ends = [normal_f32(f32::INFINITY).0, normal_f32(-f32::INFINITY).0];
        assert_eq!(ends, [1.0, 0.0]);
        // The tail keeps its relative accuracy, which 1 + erf would lose.
        let (tail, exact) = (normal_f32(-5.0).0, normal_f64(-5.0).0);
        assert!((f64::from(tail) / exact - 1.0).abs() < 2e-6);
    }
}
