//! `windows`: figures recomputed from what a recorder wrote, and from nothing else.
//!
//! For each lane the calls and execution seconds of the sliding window of 300 s, as the service counts
//! them: a call when it comes, its time when it ends, a refused one not at all. A server that was
//! away has forgotten its window. Over all lanes the rows a second and the refusals.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::Serialize;

use crate::Error;
use crate::quantile::Quantiles;
use crate::recorder::{Line, LineClass};

const WINDOW_S: f64 = 300.0;

const TOO_MANY: u16 = 429;

/// What a file of lines shows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recorded {
    /// From the first request to the last answer.
    pub seconds: f64,
    pub requests: u64,
    pub refused: u64,
    pub refused_per_1000: f64,
    /// Requests to a server that was away, and requests that were cut.
    pub unavailable: u64,
    pub cut: u64,
    pub rows: u64,
    /// After the first window.
    pub rows_per_s: f64,
    pub busy_s: f64,
    /// How long single-row messages took.
    pub interactive: Quantiles,
    pub lanes: BTreeMap<String, LaneFigures>,
}

/// One lane's use of its limits.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct LaneFigures {
    /// The greatest use in any 300 s.
    pub calls_max: usize,
    pub busy_s_max: f64,
    /// One after the other since the first request.
    pub windows: Vec<WindowFigures>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct WindowFigures {
    pub calls: u64,
    pub busy_s: f64,
}

/// The lines of a file.
pub fn read(path: &Path) -> Result<Vec<Line>, Error> {
    let mut lines = Vec::new();
    for line in BufReader::new(fs_err::File::open(path)?).lines() {
        lines.push(serde_json::from_str(&line?)?);
    }
    Ok(lines)
}

pub(crate) fn write(path: &Path, lines: &[Line]) -> Result<(), Error> {
    let mut text = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut text, line)?;
        text.push(b'\n');
    }
    Ok(fs_err::write(path, text)?)
}

/// The figures of some lines, in any order.
pub fn figures(lines: &[Line]) -> Recorded {
    let start_s = lines.iter().map(|line| line.sent_s).fold(f64::INFINITY, f64::min);
    let end_s = lines.iter().map(|line| line.answered_s).fold(start_s, f64::max);
    let measured: u64 = lines.iter().filter(|line| line.answered_s >= start_s + WINDOW_S).map(|line| line.rows).sum();
    let count = |is_counted: fn(&Line) -> bool| lines.iter().filter(|line| is_counted(line)).count() as u64;
    let refused = count(|line| line.status == TOO_MANY);
    let interactive = lines.iter().filter(|line| line.class == LineClass::Interactive && line.rows > 0);
    Recorded {
        seconds: (end_s - start_s).max(0.0),
        requests: lines.len() as u64,
        refused,
        refused_per_1000: 1_000.0 * refused as f64 / (lines.len() as f64).max(1.0),
        unavailable: count(is_unavailable),
        cut: count(|line| line.status == 0),
        rows: lines.iter().map(|line| line.rows).sum(),
        rows_per_s: measured as f64 / (end_s - start_s - WINDOW_S).max(1.0),
        busy_s: lines.iter().map(|line| line.charged_s).sum(),
        interactive: Quantiles::of(interactive.map(|line| 1_000.0 * (line.answered_s - line.sent_s)).collect()),
        lanes: lanes(lines, start_s),
    }
}

fn is_unavailable(line: &Line) -> bool {
    matches!(line.status, 502..=504)
}

fn lanes(lines: &[Line], start_s: f64) -> BTreeMap<String, LaneFigures> {
    let mut by_lane: BTreeMap<String, Vec<&Line>> = BTreeMap::new();
    for line in lines {
        if let Some(lane) = &line.lane {
            by_lane.entry(lane.clone()).or_default().push(line);
        }
    }
    by_lane.into_iter().map(|(lane, lines)| (lane, lane_figures(&lines, start_s))).collect()
}

fn lane_figures(lines: &[&Line], start_s: f64) -> LaneFigures {
    let mut figures = LaneFigures::default();
    let mut window = Window::default();
    for (at_s, event) in events(lines) {
        window.apply(at_s, event);
        let (calls, busy_s) = window.used(at_s);
        figures.calls_max = figures.calls_max.max(calls);
        figures.busy_s_max = figures.busy_s_max.max(busy_s);
        let index = ((at_s - start_s) / WINDOW_S) as usize;
        if figures.windows.len() <= index {
            figures.windows.resize(index + 1, WindowFigures::default());
        }
        match event {
            Event::Came => figures.windows[index].calls += 1,
            Event::Ended { busy_s } => figures.windows[index].busy_s += busy_s,
            Event::Forgot => {}
        }
    }
    figures
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Event {
    Came,
    Ended {
        busy_s: f64,
    },
    /// The server was away, and knows nothing of what was before.
    Forgot,
}

fn events(lines: &[&Line]) -> Vec<(f64, Event)> {
    let mut events = Vec::with_capacity(2 * lines.len());
    for line in lines {
        if is_unavailable(line) || line.status == 0 {
            events.push((line.answered_s, Event::Forgot));
        } else if line.status != TOO_MANY {
            events.push((line.sent_s, Event::Came));
            events.push((line.answered_s, Event::Ended { busy_s: line.charged_s }));
        }
    }
    events.sort_by(|one, other| one.0.total_cmp(&other.0));
    events
}

/// The use of one lane in the last 300 s.
#[derive(Debug, Default)]
pub(crate) struct Window {
    came_s: VecDeque<f64>,
    ended: VecDeque<(f64, f64)>,
}

impl Window {
    pub(crate) fn apply(&mut self, at_s: f64, event: Event) {
        match event {
            Event::Came => self.came_s.push_back(at_s),
            Event::Ended { busy_s } => self.ended.push_back((at_s, busy_s)),
            Event::Forgot => *self = Self::default(),
        }
    }

    pub(crate) fn used(&mut self, now_s: f64) -> (usize, f64) {
        let before_s = now_s - WINDOW_S;
        while self.came_s.pop_front_if(|at_s| *at_s <= before_s).is_some() {}
        while self.ended.pop_front_if(|(at_s, _)| *at_s <= before_s).is_some() {}
        (self.came_s.len(), self.ended.iter().map(|(_, busy_s)| busy_s).sum())
    }
}

#[cfg(test)]
mod tests {
    use flowgate_emulator::model::{Limits, Profile, ProfileName, Random};
    use uuid::Uuid;

    use super::*;

    fn line(sent_s: f64, answered_s: f64, status: u16) -> Line {
        Line {
            sent_s,
            answered_s,
            lane: Some("server-0".to_owned()),
            class: LineClass::Batch,
            operation: "CreateMultiple".to_owned(),
            status,
            code: None,
            rows: if status == 200 { 10 } else { 0 },
            charged_s: if status == 200 { answered_s - sent_s } else { 0.0 },
        }
    }

    #[test]
    fn the_window_holds_what_the_service_counts_at_every_moment() {
        let profile = Profile::named(ProfileName::Realistic).unwrap();
        let (lane, mut random) = ((Uuid::nil(), 0), Random::new(5));
        let mut limits = Limits::new(profile.limits);
        let mut lines: Vec<Line> = Vec::new();
        let mut under_way: Vec<(f64, f64)> = Vec::new();
        let mut counted = Vec::new();
        for tick in 0..20_000 {
            let now_s = f64::from(tick) * 0.1;
            under_way.retain(|(sent_s, ends_s)| {
                if *ends_s <= now_s {
                    limits.finish(lane, now_s, 1_000.0 * (now_s - sent_s));
                    lines.push(line(*sent_s, now_s, 200));
                }
                *ends_s > now_s
            });
            if random.below(100) < 40 {
                match limits.admit(lane, now_s) {
                    Ok(_) => under_way.push((now_s, now_s + 4.0 * random.unit())),
                    Err(_) => lines.push(line(now_s, now_s, TOO_MANY)),
                }
            }
            let (calls, busy_ms, _) = limits.used(lane, now_s);
            counted.push((now_s, calls, busy_ms / 1_000.0));
        }
        assert!(lines.iter().filter(|line| line.status == TOO_MANY).count() > 10, "the limit was reached");
        lines.extend(under_way.iter().map(|(sent_s, _)| line(*sent_s, 1e9, 200)));
        let events = events(&lines.iter().collect::<Vec<_>>());
        let (mut window, mut next) = (Window::default(), events.iter().peekable());
        for (now_s, calls, busy_s) in counted {
            while let Some((at_s, event)) = next.next_if(|(at_s, _)| *at_s <= now_s) {
                window.apply(*at_s, *event);
            }
            let recomputed = window.used(now_s);
            assert_eq!(recomputed.0, calls, "calls at {now_s} s");
            assert!((recomputed.1 - busy_s).abs() < 1e-6, "busy at {now_s} s: {} and {busy_s}", recomputed.1);
        }
    }

    #[test]
    fn refused_cut_and_unavailable_requests_are_told_apart() {
        let lines =
            [line(1.0, 3.0, 200), line(2.0, 2.1, 429), line(4.0, 5.0, 503), line(6.0, 9.0, 0), line(400.0, 401.0, 200)];
        let figures = figures(&lines);
        assert_eq!((figures.requests, figures.refused, figures.unavailable, figures.cut), (5, 1, 1, 1));
        assert_eq!((figures.rows, figures.refused_per_1000), (20, 200.0));
        assert!((figures.rows_per_s - 0.1).abs() < 1e-9, "10 rows in the 100 s after the first window");
        let lane = &figures.lanes["server-0"];
        let windows: Vec<(u64, f64)> = lane.windows.iter().map(|window| (window.calls, window.busy_s)).collect();
        assert_eq!(windows, [(1, 2.0), (1, 1.0)]);
        assert_eq!((lane.calls_max, lane.busy_s_max), (1, 2.0), "what was before the outage is forgotten");
    }
}
