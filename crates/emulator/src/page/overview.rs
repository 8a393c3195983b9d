//! The overview: what happened, what is held, what the limits are, what is being broken.

use std::sync::PoisonError;

use super::{add, escaped};
use crate::engine::{Engine, Seen, lock};
use crate::limits::{LaneUsage, LimitKind, LimitSettings};
use crate::profile::ProfileName;
use crate::throttle::grouped;

pub(super) fn main(engine: &Engine, origin: &str) -> String {
    let mut out = String::from("<main>");
    header(engine, origin, &mut out);
    tiles(engine, &mut out);
    limits(engine, &mut out);
    out.push_str("<div class=\"columns\"><div>");
    tables(engine, &mut out);
    out.push_str("</div><div>");
    requests(engine, &mut out);
    faults(engine, origin, &mut out);
    sign_in(engine, origin, &mut out);
    out.push_str("</div></div></main>");
    out
}

fn profile_name(engine: &Engine) -> &'static str {
    match engine.profile_name {
        ProfileName::Instant => "instant",
        ProfileName::Realistic => "realistic",
        ProfileName::Sink => "sink",
    }
}

fn header(engine: &Engine, origin: &str, out: &mut String) {
    add(out, format_args!("<header><h1>Flowgate emulator</h1><p class=\"address\">{}</p>", escaped(origin)));
    add(out, format_args!("<p><span class=\"badge\">{}</span></p>", profile_name(engine)));
    if engine.settings().administration_mode {
        out.push_str("<p><span class=\"badge bad\">administration mode</span></p>");
    }
    let elapsed = engine.clock.elapsed() as u64;
    let clock = format!("{}:{:02}:{:02}", elapsed / 3600, elapsed / 60 % 60, elapsed % 60);
    add(out, format_args!("<p class=\"small\">{clock} since the start"));
    if engine.clock.scale() > 1.0 {
        add(out, format_args!(", {} times as fast as the wall clock", engine.clock.scale()));
    }
    out.push_str("</p></header>");
}

fn tiles(engine: &Engine, out: &mut String) {
    let stats = lock(&engine.stats);
    let throttled: u64 = stats.refused.values().sum();
    let share = stats.entitlement as f64 * 100.0 / engine.profile.entitlement_per_day.max(1) as f64;
    out.push_str("<div class=\"tiles\">");
    let tile = |out: &mut String, kind: &str, value: String, name: &str| {
        add(out, format_args!("<div class=\"tile {kind}\"><b>{value}</b><span>{name}</span></div>"));
    };
    tile(out, "", grouped(stats.requests), "requests");
    tile(out, "", grouped(stats.rows), "rows touched");
    tile(out, if throttled > 0 { "warn" } else { "" }, grouped(throttled), "answered 429");
    tile(out, if stats.errors > 0 { "bad" } else { "" }, grouped(stats.errors), "other refusals");
    tile(out, "", grouped(stats.faults), "faults injected");
    tile(out, if share > 100.0 { "bad" } else { "" }, format!("{share:.1} %"), "day's entitlement");
    out.push_str("</div>");
}

fn limits(engine: &Engine, out: &mut String) {
    let (lanes, settings) = {
        let mut limits = lock(&engine.limits);
        (limits.usage(engine.clock.now()), limits.settings.clone())
    };
    add(out, format_args!("<section class=\"card\"><h2>Limits, in the last {} s</h2>", settings.window_s));
    if lanes.is_empty() {
        let servers = engine.servers;
        let is_one = if servers == 1 { "one web server" } else { "each of the web servers" };
        add(out, format_args!("<p class=\"empty\">No request yet. Usage is shown for every user and {is_one}.</p>"));
    }
    for lane in lanes {
        show_lane(engine, &settings, &lane, out);
    }
    out.push_str("</section>");
}

fn show_lane(engine: &Engine, settings: &LimitSettings, lane: &LaneUsage, out: &mut String) {
    let who =
        if lane.user == engine.identity.user { "loader".to_owned() } else { lane.user.to_string()[..8].to_owned() };
    add(out, format_args!("<div class=\"lane\"><b>server {} <small>{}</small>", lane.server, escaped(&who)));
    if let Some((kind, seconds)) = lane.blocked {
        add(
            out,
            format_args!(
                " <span class=\"badge bad\" title=\"{}\">429 for {} s</span>",
                kind_name(kind),
                seconds.ceil()
            ),
        );
    }
    out.push_str("</b><div>");
    let limit = |limit: Option<f64>| limit.map_or("no limit".to_owned(), |limit| grouped(limit as u64));
    meter("calls", lane.calls as f64, settings.requests.map(f64::from), &limit, out);
    meter("seconds", lane.busy_ms / 1000.0, settings.execution_ms.map(|ms| ms / 1000.0), &limit, out);
    meter("at once", f64::from(lane.running), settings.concurrent.map(f64::from), &limit, out);
    out.push_str("</div></div>");
}

fn kind_name(kind: LimitKind) -> &'static str {
    match kind {
        LimitKind::Requests => "too many calls",
        LimitKind::ExecutionTime => "too much time",
        LimitKind::Concurrency => "too many at once",
    }
}

fn meter(name: &str, used: f64, limit: Option<f64>, shown: &dyn Fn(Option<f64>) -> String, out: &mut String) {
    let share = limit.map_or(0.0, |limit| used / limit.max(1.0)).clamp(0.0, 1.0);
    let kind = match share {
        share if share >= 0.99 => "bad",
        share if share >= 0.8 => "warn",
        _ => "",
    };
    add(
        out,
        format_args!(
            "<div class=\"meter\"><span>{name}</span><span class=\"bar\"><i class=\"{kind}\" style=\"width:{:.1}%\"></i></span><span>{} of {}</span></div>",
            share * 100.0,
            grouped(used as u64),
            shown(limit)
        ),
    );
}

fn tables(engine: &Engine, out: &mut String) {
    let database = engine.database.read().unwrap_or_else(PoisonError::into_inner);
    let mut tables: Vec<_> = database
        .schema
        .live_tables()
        .map(|table| {
            let commits = database.commits.get(&table.id).copied().unwrap_or_default();
            (table, database.store(table.id).len(), commits)
        })
        .collect();
    tables.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.logical.cmp(&b.0.logical)));
    let empty = tables.iter().filter(|(_, rows, _)| *rows == 0).count();
    out.push_str("<section class=\"card\"><h2>Tables</h2><div class=\"scroll\"><table><tr><th>Table</th><th class=\"number\">Rows</th><th class=\"number\">Created</th><th class=\"number\">Updated</th><th class=\"number\">Deleted</th></tr>");
    for (table, rows, [created, updated, deleted]) in tables.iter().filter(|(_, rows, _)| *rows > 0) {
        let logical = escaped(&table.logical);
        add(out, format_args!("<tr><td><a href=\"/__emulator/tables/{logical}\">{logical}</a></td>"));
        for number in [*rows as u64, *created, *updated, *deleted] {
            let quiet = if number == 0 { " quiet" } else { "" };
            add(out, format_args!("<td class=\"number{quiet}\">{}</td>", grouped(number)));
        }
        out.push_str("</tr>");
    }
    out.push_str("</table></div>");
    if empty > 0 {
        add(out, format_args!("<details id=\"empty\"><summary>{empty} without rows</summary><p class=\"small\">"));
        for (table, ..) in tables.iter().filter(|(_, rows, _)| *rows == 0) {
            let logical = escaped(&table.logical);
            add(out, format_args!("<a href=\"/__emulator/tables/{logical}\">{logical}</a> "));
        }
        out.push_str("</p></details>");
    }
    out.push_str("</section>");
}

/// How many lines of requests are shown.
const SHOWN_MAX: usize = 16;

/// Requests that repeat the one before, as one with their number.
fn runs<'a>(requests: impl Iterator<Item = &'a Seen>) -> Vec<(&'a Seen, usize)> {
    let mut runs: Vec<(&Seen, usize)> = Vec::new();
    for request in requests {
        match runs.last_mut() {
            Some((last, times)) if last.is_like(request) => *times += 1,
            _ => runs.push((request, 1)),
        }
    }
    runs
}

fn requests(engine: &Engine, out: &mut String) {
    out.push_str("<section class=\"card\"><h2>Last requests</h2>");
    let stats = lock(&engine.stats);
    if stats.recent.is_empty() {
        out.push_str("<p class=\"empty\">None yet.</p></section>");
        return;
    }
    out.push_str("<div class=\"scroll\"><table><tr><th></th><th>Request</th><th class=\"number\">Server</th><th class=\"number\">Ago</th></tr>");
    let now = engine.clock.now();
    for (request, times) in runs(stats.recent.iter().rev()).into_iter().take(SHOWN_MAX) {
        let kind = match request.status {
            429 => "warn",
            400.. => "bad",
            _ => "good",
        };
        let server = request.server.map_or("–".to_owned(), |server| server.to_string());
        let (full, line) = (escaped(&request.line), escaped(&request.line.replace("Microsoft.Dynamics.CRM.", "")));
        let times = if times > 1 { format!(" <span class=\"quiet\">× {times}</span>") } else { String::new() };
        add(
            out,
            format_args!(
                "<tr><td class=\"status {kind}\">{}</td><td class=\"path\" title=\"{full}\">{line}{times}</td><td class=\"number\">{server}</td><td class=\"number quiet\">{:.0} s</td></tr>",
                request.status,
                (now - request.at).max(0.0)
            ),
        );
    }
    out.push_str("</table></div></section>");
}

fn faults(engine: &Engine, origin: &str, out: &mut String) {
    out.push_str("<section class=\"card\"><h2>Faults</h2>");
    let rules = lock(&engine.faults).counts();
    if rules.is_empty() {
        out.push_str("<p class=\"empty\">None are set. One 429 for the next request, for instance:</p>");
        add(
            out,
            format_args!(
                "<pre>curl {}/__emulator/faults -d '[{{\"match\":{{\"times\":1}},\"do\":{{\"limit\":\"requests\"}}}}]'</pre>",
                escaped(origin)
            ),
        );
    } else {
        out.push_str("<div class=\"scroll\"><table><tr><th>Rule</th><th class=\"number\">Matched</th><th class=\"number\">Hit</th></tr>");
        for count in &rules {
            let rule = escaped(&count.rule.to_string());
            add(
                out,
                format_args!(
                    "<tr><td class=\"path\" title=\"{rule}\">{rule}</td><td class=\"number\">{}</td><td class=\"number\">{}</td></tr>",
                    grouped(count.seen),
                    grouped(count.hits)
                ),
            );
        }
        out.push_str("</table></div>");
    }
    let snapshots = engine.snapshot_names();
    if !snapshots.is_empty() {
        add(out, format_args!("<p class=\"small quiet\">Snapshots: {}</p>", escaped(&snapshots.join(", "))));
    }
    out.push_str("</section>");
}

fn sign_in(engine: &Engine, origin: &str, out: &mut String) {
    let (identity, origin) = (&engine.identity, escaped(origin));
    add(
        out,
        format_args!(
            "<section class=\"card\"><h2>Sign-in</h2><dl><dt>Environment</dt><dd>{origin}</dd><dt>Token</dt><dd>{origin}/{}/oauth2/v2.0/token</dd><dt>Client</dt><dd>{}</dd><dt>Organisation</dt><dd>{}</dd></dl><p class=\"small quiet\">The secret is in the line the command printed.</p></section>",
            identity.tenant,
            identity.client,
            engine.organization()
        ),
    );
}
