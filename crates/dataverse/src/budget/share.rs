//! Which share of the limits batch work has at a given time: `share: 40%, during: "Mon-Fri 08:00-18:00"`.

use flowgate_core::hours::WeekHours;
use flowgate_core::project::BudgetShare;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The configured shares, in order; the first whose time it is counts, and 1 if none does.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    shares: Vec<Share>,
    zone: Option<TimeZone>,
}

#[derive(Debug)]
struct Share {
    share: f64,
    during: Option<WeekHours>,
}

impl Shares {
    /// An `Err` holds the `during` that cannot be read.
    pub(crate) fn new(shares: &[BudgetShare], zone: TimeZone) -> Result<Self, String> {
        let mut read = Vec::with_capacity(shares.len());
        for share in shares {
            let during = match &share.during {
                Some(text) => Some(WeekHours::parse(text).ok_or_else(|| text.clone())?),
                None => None,
            };
            read.push(Share { share: share.share, during });
        }
        Ok(Self { shares: read, zone: Some(zone) })
    }

    pub(crate) fn at(&self, now: Timestamp) -> f64 {
        if self.shares.is_empty() {
            return 1.0;
        }
        let local = now.to_zoned(self.zone.clone().unwrap_or(TimeZone::UTC)).datetime();
        let fits = |share: &&Share| share.during.as_ref().is_none_or(|hours| hours.contains(local));
        self.shares.iter().find(fits).map_or(1.0, |share| share.share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(entries: &[(f64, Option<&str>)]) -> Result<Shares, String> {
        let entries: Vec<_> = entries
            .iter()
            .map(|(share, during)| BudgetShare { share: *share, during: during.map(str::to_owned) })
            .collect();
        Shares::new(&entries, TimeZone::get("Europe/London").unwrap())
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn office_hours_are_local_and_the_first_that_fits_counts() {
        let shares = shares(&[(0.4, Some("Mon-Fri 08:00-18:00")), (0.95, None)]).unwrap();
        assert!((shares.at(at("2026-07-01T07:30:00Z")) - 0.4).abs() < 1e-9, "08:30 in summer time");
        assert!((shares.at(at("2026-07-01T17:00:00Z")) - 0.95).abs() < 1e-9, "the end is not included");
        assert!((shares.at(at("2026-07-04T10:00:00Z")) - 0.95).abs() < 1e-9, "a Saturday");
    }

    #[test]
    fn a_night_goes_over_midnight_and_a_week_over_sunday() {
        let shares = shares(&[(0.5, Some("22:00-06:00")), (0.7, Some("Sat-Mon 06:00-24:00"))]).unwrap();
        assert!((shares.at(at("2026-01-05T23:00:00Z")) - 0.5).abs() < 1e-9);
        assert!((shares.at(at("2026-01-06T05:59:00Z")) - 0.5).abs() < 1e-9);
        assert!((shares.at(at("2026-01-04T12:00:00Z")) - 0.7).abs() < 1e-9, "a Sunday");
        assert!((shares.at(at("2026-01-06T12:00:00Z")) - 1.0).abs() < 1e-9, "a Tuesday");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for text in ["Mon-Fri", "Mo-Fr 08:00-18:00", "08:00-25:00", "8-18"] {
            assert_eq!(shares(&[(0.5, Some(text))]).unwrap_err(), text);
        }
    }
}
