//! Powers with whole exponents.

/// xⁿ by squaring. `powi` is another function where the compiler knows its operands than where it does not, by a last
/// bit: steps and schedules would depend on what was inlined where.
pub(crate) fn power(x: f64, n: u64) -> f64 {
    let (mut square, mut power, mut left) = (x, 1.0, n);
    loop {
        if left & 1 == 1 {
            power *= square;
        }
        left >>= 1;
        if left == 0 {
            return power;
        }
        square *= square;
    }
}

#[cfg(test)]
mod tests {
    use super::power;

    #[test]
    fn powers_of_any_exponent() {
        assert_eq!(power(0.3, 0), 1.0);
        assert_eq!(power(0.0, 0), 1.0);
        assert_eq!(power(2.0, 10), 1024.0);
        assert_eq!(power(-0.5, 3), -0.125);
        assert_eq!(power(0.999, u64::MAX), 0.0);
        assert_eq!(power(1.0, u64::MAX), 1.0);
        let product: f64 = (0..37).map(|_| 0.97).product();
        assert!((power(0.97, 37) / product - 1.0).abs() < 1e-14);
    }
}
