//! `flowgate-bench NAME --json`: one benchmark, its figures as one JSON object.

use flowgate_bench::{Scenario, Span, ceiling, ceilings};

const SPAN: Span = Span { from_s: 300.0, to_s: 3_900.0 };
const SEEDS: [u64; 3] = [1, 2, 3];

fn main() {
    let to_s = std::env::var("TO").map_or(SPAN.to_s, |s| s.parse().unwrap());
    let span = Span { from_s: std::env::var("FROM").map_or(SPAN.from_s, |s| s.parse().unwrap()), to_s };
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let seeds: Vec<u64> = std::env::var("SEEDS").map(|s| s.split(',').map(|n| n.parse().unwrap()).collect()).unwrap_or(SEEDS.to_vec());
    let only = arguments.iter().find_map(|argument| Scenario::ALL.into_iter().find(|scenario| scenario.name() == argument));
    let out = match only {
        Some(scenario) => serde_json::to_string_pretty(&ceiling(scenario, span, &seeds).unwrap()).unwrap(),
        None => {
            let figures = ceilings(span, &seeds).unwrap();
            for (name, figure) in &figures {
                eprintln!("{name:32} {:.3} (min {:.3}) req {:?} | 429/1000 {:.2} | lost {} of {} held {:.4} (oracle {:.4}) | p95 {:.0} ms, {:.2}",
                    figure.throughput_to_oracle, figure.throughput_to_oracle_min, figure.required,
                    figure.quota_429_per_1000_requests, figure.interactive_lost_to_quota, figure.interactive_calls, figure.interactive_held_share, figure.interactive_held_share_of_oracle,
                    figure.interactive_p95_ms, figure.interactive_p95_to_idle);
            }
            String::new()
        }
    };
    println!("{out}");
}
