//! `flowgate-bench NAME --json`: one benchmark, its figures as one JSON object.

use flowgate_bench::{Scenario, Span, ceiling, ceilings};

const SPAN: Span = Span { from_s: 300.0, to_s: 3_900.0 };
const SEEDS: [u64; 3] = [1, 2, 3];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let only = arguments.iter().find_map(|argument| Scenario::ALL.into_iter().find(|scenario| scenario.name() == argument));
    let out = match only {
        Some(scenario) => serde_json::to_string_pretty(&ceiling(scenario, SPAN, &SEEDS).unwrap()).unwrap(),
        None => {
            let figures = ceilings(SPAN, &SEEDS).unwrap();
            for (name, figure) in &figures {
                eprintln!("{name:32} {:.3} (min {:.3}) req {:?} | 429/1000 {:.2} | lost {} of {} | p95 {:.0} ms, {:.2}",
                    figure.throughput_to_oracle, figure.throughput_to_oracle_min, figure.required,
                    figure.quota_429_per_1000_requests, figure.interactive_lost_to_quota, figure.interactive_calls,
                    figure.interactive_p95_ms, figure.interactive_p95_to_idle);
            }
            String::new()
        }
    };
    println!("{out}");
}
