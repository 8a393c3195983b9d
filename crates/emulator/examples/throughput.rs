//! Throughput of an emulator with the instant profile: rows into CreateMultiple, rows read back.
//!
//! `cargo run --release -p flowgate-emulator --example throughput -- [rows] [batch] [parallel]`
//! prints one JSON object. Client and server share the process and the machine's cores.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use flowgate_emulator::{Emulator, Options};
use reqwest::Client;
use serde_json::{Value as Json, json};

#[tokio::main]
#[expect(clippy::disallowed_methods, reason = "the emulator knows no other crate of ours")]
#[expect(clippy::print_stdout, reason = "the figures are the program's answer")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).filter_map(|text| text.parse::<usize>().ok());
    let rows = arguments.next().unwrap_or(1_000_000);
    let batch = arguments.next().unwrap_or(1000);
    let parallel = arguments.next().unwrap_or(4);
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        return Err("a TLS provider is installed already".into());
    }
    let emulator = Emulator::start(Options::default()).await?;
    let client = Client::builder().no_proxy().build()?;
    let base = format!("{}/api/data/v9.2", emulator.ready().url);
    let token = emulator.ready().token.clone();
    let bodies: Arc<Vec<bytes::Bytes>> = Arc::new((0..64).map(|n| body(n * batch, batch).into()).collect());
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let mut writers = Vec::new();
    for _ in 0..parallel {
        let (client, base, token, bodies, next) =
            (client.clone(), base.clone(), token.clone(), bodies.clone(), next.clone());
        writers.push(tokio::spawn(async move {
            while next.fetch_add(batch, Ordering::Relaxed) < rows {
                let body = bodies[next.load(Ordering::Relaxed) / batch % bodies.len()].clone();
                let url = format!("{base}/accounts/Microsoft.Dynamics.CRM.CreateMultiple");
                let request =
                    client.post(url).bearer_auth(&token).header("content-type", "application/json").body(body);
                let response = request.send().await.and_then(reqwest::Response::error_for_status);
                response?.bytes().await?;
            }
            Ok::<(), reqwest::Error>(())
        }));
    }
    for writer in writers {
        writer.await??;
    }
    let write_s = started.elapsed().as_secs_f64();
    let memory_mib = resident_mib();
    let (read, read_s) = read_all(&client, &base, &token).await?;
    let figures = json!({
        "rows": rows, "batch": batch, "parallel": parallel,
        "create_multiple_rows_per_s": (rows as f64 / write_s).round(),
        "read": read, "read_rows_per_s": (read as f64 / read_s).round(),
        "resident_mib_after_writes": memory_mib,
    });
    println!("{figures}");
    emulator.stop().await;
    Ok(())
}

/// A body of ten-column rows.
fn body(start: usize, batch: usize) -> String {
    let row = |n: usize| {
        json!({
            "@odata.type": "Microsoft.Dynamics.CRM.account",
            "name": format!("Customer {n}"), "accountnumber": format!("C-{n:08}"),
            "telephone1": "+44 20 7946 0000", "emailaddress1": format!("customer{n}@example.org"),
            "address1_line1": "1 High Street", "address1_city": "London", "address1_postalcode": "SW1A 1AA",
            "numberofemployees": n % 1000, "donotphone": n.is_multiple_of(2), "description": "A row of ten columns",
        })
    };
    json!({ "Targets": (start..start + batch).map(row).collect::<Vec<Json>>() }).to_string()
}

async fn read_all(client: &Client, base: &str, token: &str) -> Result<(usize, f64), Box<dyn std::error::Error>> {
    let started = Instant::now();
    let select = "name,accountnumber,telephone1,emailaddress1,address1_line1,address1_city,numberofemployees,donotphone,description,createdon";
    let mut url = format!("{base}/accounts?$select={select}");
    let mut read = 0;
    loop {
        let request = client.get(&url).bearer_auth(token).header("prefer", "odata.maxpagesize=5000");
        let text = request.send().await?.error_for_status()?.text().await?;
        read += text.matches("\"@odata.etag\"").count();
        let Some(at) = text.rfind("\"@odata.nextLink\":\"") else {
            return Ok((read, started.elapsed().as_secs_f64()));
        };
        let link = &text[at + "\"@odata.nextLink\":\"".len()..];
        link.trim_end_matches("\"}").clone_into(&mut url);
    }
}

/// Resident memory of this process, from the kernel; 0 where there is no such file.
fn resident_mib() -> u64 {
    let status = fs_err::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}
