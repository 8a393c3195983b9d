//! The limits of a connection: what is used of them, by whom, and what was learnt.
//!
//! A running command writes this down each second; what it wrote last can be shown later too, with its age.

use flowgate_dataverse::budget::{ConnectionSnapshot, LaneSnapshot, MessageSnapshot, Snapshot};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::number::{count, of_seconds};
use super::paint::{Paint, Tone};
use super::table::{Align, Cell, Table};

/// The service-protection window.
const WINDOW_S: f64 = 300.0;

/// Characters of an affinity cookie that are enough to tell servers apart.
const SERVER_CHARS: usize = 10;

/// A limit is worth comparing with the documented one when it differs by more.
const DIFFERS: f64 = 0.02;

/// What one connection's budget told last.
#[derive(Debug)]
pub(crate) struct Limits {
    pub(crate) connection: String,
    pub(crate) at: Timestamp,
    pub(crate) now: Timestamp,
    /// The process that told it.
    pub(crate) pid: u32,
    pub(crate) is_alive: bool,
    pub(crate) told: ConnectionSnapshot,
    /// Of each lane in `told`, the process that holds it now.
    pub(crate) holders: Vec<Option<u32>>,
}

impl Limits {
    /// In real seconds.
    fn age_s(&self) -> f64 {
        self.now.duration_since(self.at).as_secs_f64().max(0.0)
    }

    /// What was used then has left the window since.
    fn is_over(&self) -> bool {
        !self.is_alive && self.age_s() * self.told.time_scale > WINDOW_S
    }

    pub(crate) fn to_text(&self, paint: Paint) -> String {
        let by = if self.is_alive { format!("by process {}", self.pid) } else { "no command uses it now".to_owned() };
        let age = paint.faint(format!("{} ago, {by}", of_seconds(self.age_s())));
        let mut parts = vec![format!("{}  {age}", paint.strong(format!("limits of {}", self.connection)))];
        if !self.told.budget.lanes.is_empty() {
            parts.push(self.lanes(paint));
        }
        parts.extend(self.notes(paint).into_iter().map(|note| format!("  {note}")));
        if !self.told.messages.is_empty() {
            parts.push(messages(&self.told.messages, paint));
        }
        parts.join("\n")
    }

    fn lanes(&self, paint: Paint) -> String {
        let has_users = self.told.users.len() > 1;
        let mut columns = vec![("server", Align::Left)];
        if has_users {
            columns.push(("user", Align::Left));
        }
        columns.extend([
            ("held by", Align::Left),
            ("execution in 300 s", Align::Right),
            ("requests in 300 s", Align::Right),
            ("", Align::Left),
        ]);
        let mut table = Table::new(&columns);
        for (lane, holder) in self.told.budget.lanes.iter().zip(&self.holders) {
            let mut cells = vec![Cell::toned(Tone::Strong, server(lane))];
            if has_users {
                cells.push(Cell::new(self.user(lane).unwrap_or_default()));
            }
            let (used_s, used_requests) = if self.is_over() { (0.0, 0.0) } else { (lane.used_s, lane.used_requests) };
            cells.extend([
                holder.map_or(Cell::toned(Tone::Faint, "nobody"), |pid| Cell::new(format!("process {pid}"))),
                Cell::new(used_of(used_s, lane.limit_s, lane.documented_s, " s")),
                Cell::new(used_of(used_requests, lane.limit_requests, lane.documented_requests, "")),
                self.state(lane),
            ]);
            table.row(cells);
        }
        table.render("  ", paint)
    }

    fn user(&self, lane: &LaneSnapshot) -> Option<&str> {
        self.told.users.get(usize::from(lane.user))?.key.as_deref()
    }

    fn state(&self, lane: &LaneSnapshot) -> Cell {
        let until_s = lane.wait_s / self.told.time_scale - self.age_s();
        match lane.state.as_str() {
            "closed" if until_s > 0.0 => Cell::toned(Tone::Bad, format!("refused: closed for {}", of_seconds(until_s))),
            "down" if !self.is_over() => Cell::toned(Tone::Bad, "no server answers"),
            _ if !lane.is_past_known && !self.is_over() => Cell::toned(Tone::Careful, "past unknown: counts as full"),
            _ => Cell::toned(Tone::Good, "open"),
        }
    }

    fn notes(&self, paint: Paint) -> Vec<String> {
        let Snapshot { share, waiting, entitlement, lanes, .. } = &self.told.budget;
        let mut notes = Vec::new();
        if *share < 1.0 {
            notes.push(format!("batches may use {} of it at this time", percent(*share)));
        }
        let urgent_s: f64 = lanes.iter().map(|lane| lane.urgent_s).sum();
        if urgent_s > 0.0 && !self.is_over() {
            notes.push(format!("{} of it were used by interactive requests and events", of_seconds(urgent_s)));
        }
        let classes = [
            (waiting.interactive, "interactive"),
            (waiting.events, "event"),
            (waiting.batch, "batch"),
            (waiting.export, "export"),
        ];
        let waits: Vec<_> = classes.iter().filter(|(number, _)| *number > 0 && self.is_alive).collect();
        if !waits.is_empty() {
            let waits: Vec<_> = waits.iter().map(|(number, class)| format!("{number} {class}")).collect();
            notes.push(format!("waiting: {}", waits.join(", ")));
        }
        let rows = match entitlement.daily {
            Some(daily) => {
                let left = daily.saturating_sub(entitlement.used);
                let text =
                    format!("{} of {} rows in 24 hours, {} left", count(entitlement.used), count(daily), count(left));
                if left == 0 { paint.bad(text) } else { text }
            }
            None => format!("{} rows in 24 hours, no daily limit configured", count(entitlement.used)),
        };
        notes.push(rows);
        notes
    }

    pub(crate) fn to_json(&self) -> Value {
        let ConnectionSnapshot { time_scale, users, budget, messages } = &self.told;
        let lanes = budget.lanes.iter().zip(&self.holders);
        json!({
            "connection": self.connection,
            "at": self.at,
            "age_seconds": self.age_s(),
            "is_alive": self.is_alive,
            "pid": self.pid,
            "time_scale": time_scale,
            "users": users,
            "lanes": lanes.map(|(lane, holder)| self.lane_to_json(lane, *holder)).collect::<Vec<_>>(),
            "servers_are_known": budget.discovery_is_complete,
            "parallel": { "hint": budget.parallel_hint, "max": budget.parallel_max },
            "network_ms": budget.network_ms,
            "batch_share": budget.share,
            "waiting": budget.waiting,
            "rows_in_24_hours": {
                "used": budget.entitlement.used,
                "daily": budget.entitlement.daily,
                "left": budget.entitlement.daily.map(|daily| daily.saturating_sub(budget.entitlement.used)),
            },
            "messages": messages,
        })
    }

    fn lane_to_json(&self, lane: &LaneSnapshot, holder: Option<u32>) -> Value {
        let wait_s = lane.wait_s / self.told.time_scale;
        let wait = SignedDuration::try_from_secs_f64(wait_s).ok();
        let until = wait.and_then(|wait| self.at.checked_add(wait).ok()).filter(|_| lane.state != "open");
        json!({
            "server": lane.server,
            "user": self.user(lane),
            "held_by": holder,
            "state": lane.state,
            "blocked_until": until,
            "in_flight": lane.in_flight,
            "parallel_max": lane.parallel_max,
            "execution_seconds": {
                "used": lane.used_s,
                "by_urgent": lane.urgent_s,
                "left": (lane.limit_s - lane.used_s).max(0.0),
                "limit": lane.limit_s,
                "documented": lane.documented_s,
            },
            "requests": {
                "used": lane.used_requests,
                "left": (lane.limit_requests - lane.used_requests).max(0.0),
                "limit": lane.limit_requests,
                "documented": lane.documented_requests,
            },
            "is_past_known": lane.is_past_known,
        })
    }
}

fn messages(messages: &[MessageSnapshot], paint: Paint) -> String {
    let mut table = Table::new(&[
        ("table", Align::Left),
        ("message", Align::Left),
        ("a request takes", Align::Left),
        ("rows refused", Align::Right),
        ("rows in one", Align::Right),
    ]);
    for message in messages {
        let takes = format!("{:.0} ms + {:.1} ms a row", 1_000.0 * message.fixed_s, 1_000.0 * message.row_s);
        table.row(vec![
            Cell::toned(Tone::Strong, &message.table),
            Cell::new(&message.message),
            Cell::new(takes),
            Cell::new(percent(message.error_rate)),
            Cell::new(count(message.rows as u64)),
        ]);
    }
    table.render("  ", paint)
}

/// The end of a cookie differs more often than its beginning.
fn server(lane: &LaneSnapshot) -> String {
    let Some(cookie) = &lane.server else { return "all servers".to_owned() };
    let value = cookie.split_once('=').map_or(cookie.as_str(), |(_, value)| value);
    let length = value.chars().count();
    if length <= SERVER_CHARS + 1 {
        return value.to_owned();
    }
    let end: String = value.chars().skip(length - SERVER_CHARS).collect();
    format!("…{end}")
}

fn used_of(used: f64, limit: f64, documented: f64, unit: &str) -> String {
    let whole = |number: f64| count(number.max(0.0).round() as u64);
    let differs = (limit - documented).abs() > DIFFERS * documented;
    let learnt = if differs { format!(" (documented {})", whole(documented)) } else { String::new() };
    format!("{} of {}{unit}{learnt}", whole(used), whole(limit))
}

fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    if percent.fract().abs() < 0.05 || percent >= 10.0 { format!("{percent:.0} %") } else { format!("{percent:.1} %") }
}

#[cfg(test)]
mod tests {
    use flowgate_dataverse::budget::{EntitlementSnapshot, UserSnapshot, WaitingSnapshot};

    use super::*;

    fn lane(user: u16, server: &str, state: &str, used_s: f64, limit_s: f64) -> LaneSnapshot {
        LaneSnapshot {
            user,
            server: Some(format!("ARRAffinity={server}")),
            state: state.to_owned(),
            is_ours: true,
            wait_s: if state == "closed" { 42.0 } else { 0.0 },
            in_flight: 3,
            parallel_max: 12,
            used_s,
            limit_s,
            documented_s: 1_200.0,
            used_requests: 310.0,
            limit_requests: 6_000.0,
            documented_requests: 6_000.0,
            urgent_s: 1.5,
            is_past_known: true,
        }
    }

    fn limits() -> Limits {
        let user = |key: &str| UserSnapshot { key: Some(key.to_owned()), identity: format!("https://x {key}") };
        let message = MessageSnapshot {
            table: "account".to_owned(),
            message: "CreateMultiple".to_owned(),
            fixed_s: 0.0312,
            row_s: 0.00987,
            error_rate: 0.0021,
            rows: 118,
        };
        let budget = Snapshot {
            lanes: vec![
                lane(0, "0a1b2c3d4e5f60718293a4b5c6d7e8f9", "open", 812.4, 1_196.0),
                lane(0, "ffeeddccbbaa99887766554433221100", "closed", 600.0, 609.0),
                lane(1, "short", "open", 0.0, 1_200.0),
            ],
            discovery_is_complete: true,
            parallel_hint: Some(16),
            parallel_max: 36,
            share: 0.4,
            network_ms: 41.0,
            waiting: WaitingSnapshot { interactive: 0, events: 0, batch: 6, export: 0 },
            entitlement: EntitlementSnapshot { used: 12_300, daily: Some(300_000) },
        };
        let told = ConnectionSnapshot {
            time_scale: 1.0,
            users: vec![user("nightly"), user("desk")],
            budget,
            messages: vec![message],
        };
        let at = Timestamp::from_second(1_800_000_000).unwrap();
        Limits {
            connection: "crm".to_owned(),
            at,
            now: at + SignedDuration::from_secs(2),
            pid: 4711,
            is_alive: true,
            told,
            holders: vec![Some(4711), Some(5120), None],
        }
    }

    #[test]
    fn they_can_be_read_at_a_glance() {
        insta::assert_snapshot!(limits().to_text(Paint::off()), @r#"
        limits of crm  2.0 s ago, by process 4711
          server        user      held by                     execution in 300 s   requests in 300 s
          …b5c6d7e8f9   nightly   process 4711                    812 of 1,196 s        310 of 6,000   open
          …4433221100   nightly   process 5120   600 of 609 s (documented 1,200)        310 of 6,000   refused: closed for 40 s
          short         desk      nobody                            0 of 1,200 s        310 of 6,000   open
          batches may use 40 % of it at this time
          4.5 s of it were used by interactive requests and events
          waiting: 6 batch
          12,300 of 300,000 rows in 24 hours, 287,700 left
          table     message          a request takes        rows refused   rows in one
          account   CreateMultiple   31 ms + 9.9 ms a row          0.2 %           118
        "#);
    }

    #[test]
    fn what_was_told_long_ago_is_not_taken_for_now() {
        let limits = limits();
        let now = limits.at + SignedDuration::from_hours(2);
        let old = Limits { now, is_alive: false, holders: vec![None; 3], ..limits };
        insta::assert_snapshot!(old.to_text(Paint::off()), @r#"
        limits of crm  2 h 00 min ago, no command uses it now
          server        user      held by              execution in 300 s   requests in 300 s
          …b5c6d7e8f9   nightly   nobody                     0 of 1,196 s          0 of 6,000   open
          …4433221100   nightly   nobody    0 of 609 s (documented 1,200)          0 of 6,000   open
          short         desk      nobody                     0 of 1,200 s          0 of 6,000   open
          batches may use 40 % of it at this time
          12,300 of 300,000 rows in 24 hours, 287,700 left
          table     message          a request takes        rows refused   rows in one
          account   CreateMultiple   31 ms + 9.9 ms a row          0.2 %           118
        "#);
    }

    #[test]
    fn a_script_gets_all_of_it() {
        let shown = limits().to_json();
        insta::assert_json_snapshot!(shown["lanes"][1], @r#"
        {
          "blocked_until": "2027-01-15T08:00:42Z",
          "execution_seconds": {
            "by_urgent": 1.5,
            "documented": 1200.0,
            "left": 9.0,
            "limit": 609.0,
            "used": 600.0
          },
          "held_by": 5120,
          "in_flight": 3,
          "is_past_known": true,
          "parallel_max": 12,
          "requests": {
            "documented": 6000.0,
            "left": 5690.0,
            "limit": 6000.0,
            "used": 310.0
          },
          "server": "ARRAffinity=ffeeddccbbaa99887766554433221100",
          "state": "closed",
          "user": "nightly"
        }
        "#);
        assert_eq!(shown["rows_in_24_hours"]["left"], 287_700);
        assert_eq!(shown["messages"][0]["table"], "account");
    }
}
