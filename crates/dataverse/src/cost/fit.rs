//! The fit: recursive least squares for the time, an exponential average for the errors.

/// How much of the past a new answer keeps: about the last twenty answers count.
const FORGETTING: f64 = 0.95;

/// Relative spread of service times (variance of 0.15, the model's noise).
const NOISE: f64 = 0.15 * 0.15;

/// How unsure the first constants are: by twice their size.
const FIRST_SPREAD: f64 = 2.0;

/// No answer is believed to differ more than this many times from what was expected.
const SURPRISE_MAX: f64 = 10.0;

const FIXED_S_MIN: f64 = 0.001;
const ROW_S_MIN: f64 = 0.000_1;

/// Seconds of a request of B rows: `a + b B`.
///
/// Fitted by recursive least squares to relative errors, because the spread of service times grows
/// with their size: `x = (1, B) / S^`, `y = S / S^`. What is forgotten falls back to the first
/// constants and not to ignorance: requests are mostly of one size, and the share of `a` in them,
/// which they do not tell, must not drift.
#[derive(Debug, Clone, PartialEq)]
pub struct CostModel {
    fixed_s: f64,
    row_s: f64,
    first: Information,
    information: Information,
}

/// What is known of `(a, b)`: the inverse of their covariance, and it times their values.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Information {
    fixed: f64,
    both: f64,
    row: f64,
    values: [f64; 2],
}

impl CostModel {
    /// Begins with what is published for the message.
    pub fn new(fixed_s: f64, row_s: f64) -> Self {
        let (fixed, row) = ((FIRST_SPREAD * fixed_s).powi(-2), (FIRST_SPREAD * row_s).powi(-2));
        let first = Information { fixed, both: 0.0, row, values: [fixed * fixed_s, row * row_s] };
        Self { fixed_s, row_s, first, information: first }
    }

    pub fn fixed_s(&self) -> f64 {
        self.fixed_s
    }

    pub fn row_s(&self) -> f64 {
        self.row_s
    }

    /// What a request of so many rows is expected to take.
    pub fn seconds(&self, rows: f64) -> f64 {
        self.fixed_s + self.row_s * rows
    }

    /// A request of so many rows took `seconds`.
    pub fn observe(&mut self, rows: f64, seconds: f64) {
        if !seconds.is_finite() || seconds <= 0.0 || rows < 1.0 {
            return;
        }
        let expected = self.seconds(rows);
        let ratio = (seconds / expected).clamp(1.0 / SURPRISE_MAX, SURPRISE_MAX);
        let x = [1.0 / expected, rows / expected];
        let (first, old) = (self.first, self.information);
        let mixed = |old: f64, first: f64, new: f64| FORGETTING * old + (1.0 - FORGETTING) * first + new / NOISE;
        let information = Information {
            fixed: mixed(old.fixed, first.fixed, x[0] * x[0]),
            both: mixed(old.both, first.both, x[0] * x[1]),
            row: mixed(old.row, first.row, x[1] * x[1]),
            values: [
                mixed(old.values[0], first.values[0], x[0] * ratio),
                mixed(old.values[1], first.values[1], x[1] * ratio),
            ],
        };
        let determinant = information.fixed * information.row - information.both * information.both;
        let [fixed, row] = information.values;
        self.fixed_s = ((information.row * fixed - information.both * row) / determinant).max(FIXED_S_MIN);
        self.row_s = ((information.fixed * row - information.both * fixed) / determinant).max(ROW_S_MIN);
        self.information = information;
    }
}

/// The share of rows that the service refuses, averaged over about the last ten thousand.
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorRate(f64);

/// Before anything is known: one row in 100,000.
const ERROR_RATE_FIRST: f64 = 1e-5;
const ERROR_MEMORY_ROWS: f64 = 10_000.0;

impl Default for ErrorRate {
    fn default() -> Self {
        Self(ERROR_RATE_FIRST)
    }
}

impl ErrorRate {
    pub fn get(&self) -> f64 {
        self.0
    }

    pub fn observe(&mut self, rows: f64, refused: f64) {
        if rows >= 1.0 {
            let weight = 1.0 - (-rows / ERROR_MEMORY_ROWS).exp();
            self.0 += weight * ((refused / rows).clamp(0.0, 1.0) - self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_parts_are_found_when_sizes_vary() {
        let mut model = CostModel::new(0.030, 0.010);
        for round in 0..400 {
            let rows = if round % 3 == 0 { 10.0 } else { 200.0 };
            let noise = [0.9, 1.1, 1.0, 0.95, 1.05][round % 5];
            model.observe(rows, (0.2 + 0.1 * rows) * noise);
        }
        assert!((model.fixed_s() - 0.2).abs() < 0.1, "{model:?}");
        assert!((model.row_s() - 0.1).abs() < 0.01, "{model:?}");
    }

    #[test]
    fn one_size_alone_still_predicts_itself() {
        let mut model = CostModel::new(0.030, 0.010);
        for _ in 0..10_000 {
            model.observe(100.0, 3.09);
        }
        assert!((model.seconds(100.0) - 3.09).abs() < 0.03, "{model:?}");
        assert!(model.fixed_s() > 0.0 && model.fixed_s() < 0.3, "{model:?}");
        // And it has not become deaf: a service three times as slow is noticed within some answers.
        for _ in 0..60 {
            model.observe(100.0, 9.27);
        }
        assert!(model.seconds(100.0) > 7.5, "{model:?}");
    }

    #[test]
    fn nonsense_and_single_outliers_do_little() {
        let mut model = CostModel::new(0.030, 0.010);
        for _ in 0..50 {
            model.observe(100.0, 1.03);
        }
        for seconds in [f64::NAN, -1.0, 0.0, f64::INFINITY] {
            model.observe(100.0, seconds);
        }
        model.observe(100.0, 240.0);
        assert!(model.seconds(100.0) < 2.0, "{model:?}");
    }

    #[test]
    fn the_error_rate_follows_what_is_refused() {
        let mut rate = ErrorRate::default();
        for _ in 0..200 {
            rate.observe(100.0, 1.0);
        }
        assert!((rate.get() - 0.01).abs() < 0.002, "{}", rate.get());
        for _ in 0..1_000 {
            rate.observe(100.0, 0.0);
        }
        assert!(rate.get() < 1e-5);
    }
}
