//! Hours of the week: `Mon-Fri 08:00-18:00`, `Sat,Sun 00:00-24:00`, `22:00-06:00`.
//!
//! One reader for the configuration, which refuses what it cannot read, and for the budget, which acts on
//! it. A time of day is in whatever zone the asker means.

use jiff::civil::{DateTime, Time, Weekday};

const DAYS: [(&str, Weekday); 7] = [
    ("Mon", Weekday::Monday),
    ("Tue", Weekday::Tuesday),
    ("Wed", Weekday::Wednesday),
    ("Thu", Weekday::Thursday),
    ("Fri", Weekday::Friday),
    ("Sat", Weekday::Saturday),
    ("Sun", Weekday::Sunday),
];

/// Some days of the week, and on each the time from `start` to `end`, which is not included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeekHours {
    /// By day, Monday first.
    days: [bool; 7],
    start: Time,
    /// `None` is the end of the day.
    end: Option<Time>,
}

impl WeekHours {
    /// `None` if the text is not of the form.
    pub fn parse(text: &str) -> Option<Self> {
        let (days, hours) = match text.split_once(' ') {
            Some((days, hours)) => (parse_days(days)?, hours),
            None => ([true; 7], text),
        };
        let (start, end) = hours.split_once('-')?;
        let end = if end == "24:00" { None } else { Some(parse_time(end)?) };
        let start = parse_time(start)?;
        (end != Some(start)).then_some(Self { days, start, end })
    }

    /// Hours over midnight belong to the day they are in, which is what a person expects of `22:00-06:00`.
    pub fn contains(&self, moment: DateTime) -> bool {
        let day = moment.weekday().to_monday_zero_offset();
        let is_day = self.days.get(usize::try_from(day).unwrap_or_default()).copied().unwrap_or_default();
        let time = moment.time();
        let is_time = match self.end {
            None => time >= self.start,
            Some(end) if self.start < end => time >= self.start && time < end,
            Some(end) => time >= self.start || time < end,
        };
        is_day && is_time
    }
}

/// `Mon-Fri`, `Sat,Sun`, `Mon-Wed,Fri`; `Sat-Mon` goes over the week's end.
fn parse_days(text: &str) -> Option<[bool; 7]> {
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (parse_day(first)?, parse_day(last)?);
        let mut day = first;
        loop {
            *days.get_mut(usize::try_from(day.to_monday_zero_offset()).ok()?)? = true;
            if day == last {
                break;
            }
            day = day.next();
        }
    }
    Some(days)
}

fn parse_day(text: &str) -> Option<Weekday> {
    DAYS.iter().find(|(name, _)| *name == text).map(|(_, day)| *day)
}

/// Two digits each.
fn parse_time(text: &str) -> Option<Time> {
    let (hour, minute) = text.split_once(':').filter(|(hour, minute)| hour.len() == 2 && minute.len() == 2)?;
    Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_within(hours: &str, moment: &str) -> bool {
        WeekHours::parse(hours).unwrap().contains(moment.parse().unwrap())
    }

    // The 5th of January 2026 is a Monday.

    #[test]
    fn the_end_is_not_included() {
        assert!(is_within("Mon-Fri 08:00-18:00", "2026-01-05T08:00"));
        assert!(!is_within("Mon-Fri 08:00-18:00", "2026-01-05T18:00"));
        assert!(!is_within("Mon-Fri 08:00-18:00", "2026-01-10T10:00"));
        assert!(is_within("00:00-24:00", "2026-01-10T23:59:59"));
    }

    #[test]
    fn days_may_be_listed_and_go_over_the_weeks_end() {
        let days = |text: &str| {
            (5..12)
                .filter(|day| is_within(text, &format!("2026-01-{day:02}T12:00")))
                .map(|day| day - 5)
                .collect::<Vec<_>>()
        };
        assert_eq!(days("Mon-Wed,Fri 08:00-18:00"), [0, 1, 2, 4]);
        assert_eq!(days("Sat,Sun 08:00-18:00"), [5, 6]);
        assert_eq!(days("Sat-Mon 08:00-18:00"), [0, 5, 6]);
    }

    #[test]
    fn a_night_goes_over_midnight() {
        assert!(is_within("22:00-06:00", "2026-01-05T23:00"));
        assert!(is_within("22:00-06:00", "2026-01-06T05:59"));
        assert!(!is_within("22:00-06:00", "2026-01-06T06:00"));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in
            ["", "Mon", "Mon-Fri", "Mo-Fr 08:00-18:00", "8:00-18:00", "08:00-24:01", "08:00-08:00", "mon 08:00-09:00"]
        {
            assert_eq!(WeekHours::parse(text), None, "{text}");
        }
    }
}
