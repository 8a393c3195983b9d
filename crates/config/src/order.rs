//! Orders: loads by their lookups, flows by `after`.

use flowgate_core::Code;
use flowgate_core::nearest::{nearest, quoted_list};
use flowgate_core::project::Load;

use crate::flow::FlowFile;
use crate::report::{Problem, Report};

/// Puts every load behind the loads of the tables it looks up.
///
/// Otherwise the order of the file holds, and within a circle it holds too: there the engine takes
/// a second pass.
pub(crate) fn order_loads(loads: Vec<Load>) -> Vec<Load> {
    let needs = reachable(&loads);
    let in_one_circle = |a: usize, b: usize| needs[a][b] && needs[b][a];
    let mut order: Vec<usize> = Vec::with_capacity(loads.len());
    while order.len() < loads.len() {
        let waiting: Vec<usize> = (0..loads.len()).filter(|load| !order.contains(load)).collect();
        let is_ready = |load: usize| waiting.iter().all(|other| !needs[load][*other] || needs[*other][load]);
        // The relation "needs, and is not needed by" has no circle, so one load is always ready.
        let next = waiting.iter().copied().find(|load| is_ready(*load)).unwrap_or(waiting[0]);
        order.extend(waiting.iter().copied().filter(|load| *load == next || in_one_circle(*load, next)));
    }
    let mut loads: Vec<Option<Load>> = loads.into_iter().map(Some).collect();
    order.into_iter().filter_map(|at| loads[at].take()).collect()
}

/// `needs[a][b]`: load `a` looks up the table of load `b`, directly or through others.
fn reachable(loads: &[Load]) -> Vec<Vec<bool>> {
    let looks_up = |a: &Load, b: &Load| {
        a.into == b.into && a.lookups.values().flat_map(|lookup| &lookup.rules).any(|rule| rule.table == b.table)
    };
    let mut needs: Vec<Vec<bool>> = loads.iter().map(|a| loads.iter().map(|b| looks_up(a, b)).collect()).collect();
    for middle in 0..loads.len() {
        for from in 0..loads.len() {
            for to in 0..loads.len() {
                let is_through = needs[from][middle] && needs[middle][to];
                needs[from][to] |= is_through;
            }
        }
    }
    needs
}

/// Reports flows that wait for a flow that is not there, or for each other in a circle.
pub(crate) fn check_after(files: &[FlowFile], report: &mut Report) {
    let index_of = |name: &str| files.iter().position(|file| file.name.as_str() == name);
    let mut waits_for: Vec<Vec<usize>> = Vec::with_capacity(files.len());
    for file in files {
        let mut targets = Vec::new();
        for node in file.after() {
            let Some(name) = node.text() else { continue };
            if let Some(target) = index_of(name) {
                targets.push(target);
                continue;
            }
            let names = files.iter().map(|file| file.name.as_str());
            let problem = Problem::new(Code::UNKNOWN_REFERENCE, format!("no flow is called `{name}`"));
            let problem = problem.at(&node.place).value(name).nearest(nearest(name, names.clone()));
            report.add(problem.hint(format!("flows: {}", quoted_list(names))));
        }
        waits_for.push(targets);
    }
    let mut reported = vec![false; files.len()];
    for start in 0..files.len() {
        if let Some(circle) = circle_through(start, &waits_for).filter(|circle| !reported[circle[0]]) {
            for flow in &circle {
                reported[*flow] = true;
            }
            report.add(circle_problem(&circle, files));
        }
    }
}

/// The shortest circle that begins and ends at `start`, without its last element.
fn circle_through(start: usize, waits_for: &[Vec<usize>]) -> Option<Vec<usize>> {
    let mut came_from: Vec<Option<usize>> = vec![None; waits_for.len()];
    let mut queue = std::collections::VecDeque::from([start]);
    while let Some(flow) = queue.pop_front() {
        for &next in &waits_for[flow] {
            if next == start {
                let mut circle = vec![flow];
                while let Some(before) = circle.last().and_then(|last| came_from[*last]) {
                    circle.push(before);
                }
                circle.reverse();
                return Some(circle);
            }
            if came_from[next].is_none() {
                came_from[next] = Some(flow);
                queue.push_back(next);
            }
        }
    }
    None
}

fn circle_problem(circle: &[usize], files: &[FlowFile]) -> Problem {
    let names: Vec<String> =
        circle.iter().chain(circle.first()).map(|flow| format!("`{}`", files[*flow].name)).collect();
    let mut problem = Problem::new(Code::CYCLE, format!("flows wait for each other: {}", names.join(" -> ")));
    for (position, flow) in circle.iter().enumerate() {
        let awaited = circle[(position + 1) % circle.len()];
        let node = files[*flow].after().iter().find(|node| node.text() == Some(files[awaited].name.as_str()));
        let Some(node) = node else { continue };
        problem = match position {
            0 => problem.at(&node.place),
            _ => problem.also(&node.place, format!("`{}` waits for `{}`", files[*flow].name, files[awaited].name)),
        };
    }
    problem.hint("remove one of these `after:` entries")
}
