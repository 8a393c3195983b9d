//! How many rows a request should hold.
//!
//! More rows spread the fixed part `a` over more of them; but where one bad row refuses all, more rows
//! are also sent again. With a share `p` of bad rows, and the search for one costing about `r = 2` times
//! the rows of the refused request, a row costs about `a/B + b + b r p B`, least at
//! `B* = sqrt(a / (b r p))` (performance notes, section 1.4).

use super::fit::CostModel;

/// The most rows a bulk message takes on a standard table.
const BULK_ROWS_MAX: usize = 1_000;

/// Elastic tables take their rows one by one, so there is nothing to win: the documented number.
pub const ELASTIC_ROWS: usize = 100;

/// Longer requests are lost at once when a server restarts, and come near the two minutes of a plug-in.
/// A create of 3 s has 99.0 % of its time in rows, one of 2 s 98.5 %, one of 5 s 99.4 %; the last
/// requests of a load, which run alone, grow with it.
const SECONDS_MAX: f64 = 3.0;

/// At `19 a / b` rows 95 % of the time goes to rows. Fewer are worth it only when rows are refused.
const ROWS_PART: f64 = 19.0;

const REWORK: f64 = 2.0;

/// Rows of one request, by the model and the share of rows that are refused.
pub fn batch_rows(model: &CostModel, error_rate: f64) -> usize {
    let best = best_rows(model, error_rate);
    let timely = (SECONDS_MAX - model.fixed_s()) / model.row_s();
    let least = (ROWS_PART * model.fixed_s() / model.row_s()).min(best);
    let rows = best.min(timely).max(least);
    (rows.max(1.0) as usize).min(BULK_ROWS_MAX)
}

/// Rows of one request when `refused` rows, at least two, were refused together and one of them is likely to blame: in
/// pieces of `m` they cost `a / m` a row more, and the piece that is refused again about `r m` rows of rework, least at
/// `m = sqrt(a refused / (b r))`.
pub(super) fn piece_rows(model: &CostModel, error_rate: f64, refused: usize) -> usize {
    let best = (model.fixed_s() * refused as f64 / (model.row_s() * REWORK)).sqrt();
    let at_most = (refused / 2).min(batch_rows(model, error_rate));
    (best.round() as usize).clamp(1, at_most.max(1))
}

/// Whether single-row messages in a `$batch`, each with its own answer, are cheaper than a bulk
/// message that is refused as a whole.
pub fn prefers_parts(bulk: &CostModel, parts: &CostModel, error_rate: f64) -> bool {
    let rows = batch_rows(bulk, error_rate) as f64;
    let bulk_s = bulk.fixed_s() / rows + bulk.row_s() * (1.0 + REWORK * error_rate * rows);
    parts.seconds(rows) / rows < bulk_s
}

fn best_rows(model: &CostModel, error_rate: f64) -> f64 {
    (model.fixed_s() / (model.row_s() * REWORK * error_rate.max(1e-9))).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATE: (f64, f64) = (0.030, 0.010);
    const PARTS: (f64, f64) = (0.005, 0.040);

    fn rows((fixed_s, row_s): (f64, f64), error_rate: f64) -> usize {
        batch_rows(&CostModel::new(fixed_s, row_s), error_rate)
    }

    #[test]
    fn more_bad_rows_make_smaller_requests() {
        // The table of section 1.4: a/b = 3.
        assert_eq!([1e-4, 1e-3, 1e-2].map(|rate| rows(CREATE, rate)), [122, 38, 12]);
        assert_eq!(rows(CREATE, 1.0), 1);
        assert_eq!(rows(CREATE, 0.0), 297, "three seconds of a create");
    }

    #[test]
    fn refused_rows_are_searched_in_few_large_steps() {
        let model = CostModel::new(CREATE.0, CREATE.1);
        assert_eq!([300, 21, 5, 3, 2].map(|refused| piece_rows(&model, 0.0, refused)), [21, 6, 2, 1, 1]);
        assert_eq!(piece_rows(&model, 0.1, 300), 3, "not more than may be sent at all");
    }

    #[test]
    fn an_expensive_row_is_sent_in_small_requests_but_not_alone() {
        assert_eq!(rows((0.2, 0.1), 0.0), 38, "19 a / b");
        assert_eq!(rows((0.001, 0.0001), 0.0), BULK_ROWS_MAX);
        assert_eq!(rows((10.0, 0.001), 0.0), BULK_ROWS_MAX, "the fixed part alone is too long");
    }

    #[test]
    fn parts_win_only_when_they_are_cheaper_by_the_model() {
        let (create, parts) = (CostModel::new(CREATE.0, CREATE.1), CostModel::new(PARTS.0, PARTS.1));
        for rate in [1e-5, 1e-2, 0.1] {
            assert!(!prefers_parts(&create, &parts, rate), "15 ms and 31 ms against 40 ms, at {rate}");
        }
        assert!(prefers_parts(&create, &parts, 0.5));
        let slow = CostModel::new(0.2, 0.05);
        assert!(prefers_parts(&slow, &parts, 1e-3));
    }
}
