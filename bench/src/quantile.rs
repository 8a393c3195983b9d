//! Middle, 95th percentile and greatest of some figures.

use serde::Serialize;

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Quantiles {
    pub count: u64,
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub max_ms: f64,
}

impl Quantiles {
    pub(crate) fn of(mut values_ms: Vec<f64>) -> Self {
        values_ms.sort_by(f64::total_cmp);
        let at = |percent: usize| values_ms.get(values_ms.len() * percent / 100).copied().unwrap_or_default();
        Self {
            count: values_ms.len() as u64,
            p50_ms: at(50),
            p95_ms: at(95),
            max_ms: values_ms.last().copied().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_95th_of_a_hundred_is_passed_by_four() {
        let quantiles = Quantiles::of((0..100).rev().map(f64::from).collect());
        assert_eq!(quantiles, Quantiles { count: 100, p50_ms: 50.0, p95_ms: 95.0, max_ms: 99.0 });
        assert_eq!(Quantiles::of(Vec::new()), Quantiles::default());
    }
}
