use super::*;
use crate::numeric::traced::assembly::{F32, F64, assembled};

fn some(count: usize, entries: usize) -> Vec<usize> {
    (0..count).map(|i| i * i % 7 * 31 % entries).collect()
}

/// Σ w x over the lists, one after the other.
fn plain(lists: &Lists, x: &[[f64; 2]]) -> Vec<Vec<f64>> {
    let sums = lists.starts.windows(2).map(|ends| {
        let mut sum = vec![0.0; 2];
        for entry in ends[0] as usize..ends[1] as usize {
            let weight = match &lists.weights {
                Weights::All(weight) => *weight,
                Weights::Each(weights) => weights[entry],
            };
            let row = x[lists.rows[entry] as usize];
            (0..2).for_each(|column| sum[column] += weight * row[column]);
        }
        sum
    });
    sums.collect()
}

fn matrix(count: usize) -> Vec<[f64; 2]> {
    let numbers = (0..count).map(|i| [(i % 11) as f64 - 4.0, (i % 5) as f64]);
    numbers.collect()
}

fn matrix_of(rows: Vec<[f64; 2]>) -> Result<Tensor> {
    let count = rows.len();
    Ok(Tensor::from_vec(rows.concat(), (count, 2), &Device::Cpu)?)
}

fn cases() -> Vec<Lists> {
    let sizes = [(0, 3), (1, 1), (5, 3), (40, 2), (600, 1), (3000, 13)];
    let each = sizes.into_iter().flat_map(|(count, entries)| {
        let ids = some(count, entries);
        let weights = (0..count).map(|i| (i % 3) as f64 * 0.5).collect();
        [
            Weights::All(1.0),
            Weights::All(-2.0),
            Weights::Each(weights),
        ]
        .map(|weights| Lists::by_id(ids.iter().copied(), entries, weights))
    });
    each.collect()
}

#[test]
fn sums_of_lists() -> Result<()> {
    for lists in cases() {
        let x = matrix(lists.rows.len().max(1));
        let expected = plain(&lists, &x);
        let x = matrix_of(x)?;
        assert_eq!(lists.sums(&x)?.to_vec2::<f64>()?, expected, "{lists:?}");
    }
    Ok(())
}

/// Every list's pieces are no longer than they may be, and give its sum, also where they are cut once more.
#[test]
fn long_lists_are_cut() -> Result<()> {
    for lists in cases() {
        let x = matrix(lists.rows.len().max(1));
        let expected = plain(&lists, &x);
        let (mut left, mut sums) = (lists.clone(), matrix_of(x)?);
        while left.longest() > LONGEST {
            let (pieces, rest) = left.cut(LONGEST);
            assert!(pieces.longest() <= LONGEST, "{lists:?}");
            assert!(rest.longest() < left.longest(), "{lists:?}");
            (left, sums) = (rest, pieces.sums(&sums)?);
        }
        assert_eq!(left.sums(&sums)?.to_vec2::<f64>()?, expected, "{lists:?}");
    }
    Ok(())
}

#[test]
fn the_assembler_takes_lists() {
    let texts = [F32, F64].map(|of| [ptx::sums(false, of), ptx::sums(true, of)]);
    assembled(&texts.concat());
}
