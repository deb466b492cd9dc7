//! Histories of transactions over the wire, with `kill -9` in between, checked for the anomalies that snapshot isolation
//! forbids. Clients append numbers to lists and read them, so that every read tells the order of all writes before it.
//!
//! `OMENDB_TEST_SEED` repeats the choices of a run; `OMENDB_TEST_SCALE=full` runs many more transactions.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use adya::{History, Opts, Valid, Workload, check};
use arrow::array::AsArray;
use arrow_flight::Empty;
use arrow_flight::sql::EndTransaction;
use bytes::Bytes;
use futures::TryStreamExt;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tonic::transport::Endpoint;

use crate::fixture::Client;

/// Lists that are in use at a time; few, so that transactions meet.
const LISTS: u64 = 5;
/// Appends before the next lists are taken, so that none grows long.
const APPENDS: u64 = 150;
const CLIENTS: usize = 6;

/// A server in a process of its own, on a port that stays the same.
struct Process {
    child: Child,
    /// Open, so that the program can go on writing to it.
    output: BufReader<ChildStdout>,
    dir: tempfile::TempDir,
    port: u16,
}

impl Process {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (child, output, port) = Self::spawn(dir.path(), 0);
        Self { child, output, dir, port }
    }

    fn spawn(dir: &std::path::Path, port: u16) -> (Child, BufReader<ChildStdout>, u16) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_omendb"))
            .args([
                "serve",
                "--log",
                "error",
                "--listen",
                &format!("127.0.0.1:{port}"),
                "--data-dir",
            ])
            .arg(dir.join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let port = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(',').next());
        (child, output, port.unwrap_or_else(|| panic!("{line}")).parse().unwrap())
    }

    fn kill_and_start(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        (self.child, self.output, _) = Self::spawn(self.dir.path(), self.port);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One operation of a transaction.
#[derive(Clone)]
enum Op {
    Append(u64, u64),
    Read(u64, Option<Vec<u64>>),
}

fn line(kind: &str, process: usize, ops: &[Op]) -> String {
    let ops: Vec<String> = ops
        .iter()
        .map(|op| match op {
            Op::Append(list, n) => format!("[\"append\",{list},{n}]"),
            Op::Read(list, None) => format!("[\"r\",{list},null]"),
            Op::Read(list, Some(found)) => format!("[\"r\",{list},{found:?}]"),
        })
        .collect();
    format!("{{\"type\":\"{kind}\",\"process\":{process},\"value\":[{}]}}", ops.join(","))
}

/// What all clients share.
struct Run {
    port: u16,
    history: Mutex<Vec<String>>,
    appended: AtomicU64,
    committed: AtomicUsize,
    /// A client whose commit got no answer goes on as another process.
    processes: AtomicUsize,
    transactions: usize,
}

impl Run {
    async fn connect(&self) -> Client {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", self.port)).unwrap();
        loop {
            if let Ok(channel) = endpoint.connect().await {
                let mut client = Client::new(channel);
                if let Ok(response) = client.flight.list_actions(Empty {}).await {
                    let cookie = response.metadata().get("set-cookie").unwrap().to_str().unwrap();
                    let session = cookie.split(';').next().unwrap();
                    // The second one says that BEGIN has begun a transaction: it makes no difference where that is not so.
                    let cookies = format!("{session}; arrow_flight_session_transaction=1");
                    client.sql.set_header("cookie", cookies);
                    return client;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn plan(&self, rng: &mut SmallRng) -> Vec<Op> {
        (0..rng.random_range(1..5))
            .map(|_| {
                let appended = self.appended.load(Ordering::Relaxed);
                let list = appended / APPENDS * LISTS + rng.random_range(0..LISTS);
                match rng.random_bool(0.5) {
                    true => Op::Append(list, 1 + self.appended.fetch_add(1, Ordering::Relaxed)),
                    false => Op::Read(list, None),
                }
            })
            .collect()
    }

    async fn client(&self, mut rng: SmallRng) {
        let mut process = self.processes.fetch_add(1, Ordering::Relaxed);
        let mut client = self.connect().await;
        while self.committed.load(Ordering::Relaxed) < self.transactions {
            let mut ops = self.plan(&mut rng);
            self.history.lock().push(line("invoke", process, &ops));
            let planned = ops.clone();
            let outcome = transaction(&mut client, &mut ops, &mut rng).await;
            // What a transaction read that may not have been committed is not part of the history.
            let (kind, ops) = match &outcome {
                Outcome::Committed => ("ok", ops),
                Outcome::RolledBack => ("fail", planned),
                Outcome::Unknown => ("info", planned),
            };
            self.history.lock().push(line(kind, process, &ops));
            match outcome {
                Outcome::Committed => {
                    self.committed.fetch_add(1, Ordering::Relaxed);
                }
                Outcome::Unknown => process = self.processes.fetch_add(1, Ordering::Relaxed),
                Outcome::RolledBack => {}
            }
            if kind != "ok" {
                client = self.connect().await;
            }
        }
    }
}

enum Outcome {
    Committed,
    RolledBack,
    Unknown,
}

/// How a transaction is named: by an action's id, or not at all where BEGIN began it.
type Name = Option<Bytes>;

async fn transaction(client: &mut Client, ops: &mut [Op], rng: &mut SmallRng) -> Outcome {
    let by_action = rng.random_bool(0.6);
    let begun = match by_action {
        true => client.sql.begin_transaction().await.map(Some),
        false => client.sql.execute_update("BEGIN".to_owned(), None).await.map(|_| None),
    };
    let Ok(name) = begun else { return Outcome::RolledBack };
    let mut failed = false;
    for op in ops.iter_mut() {
        if run(client, &name, op, rng).await.is_err() {
            failed = true;
            break;
        }
    }
    if failed || rng.random_bool(0.1) {
        // Where the connection is gone, so is the transaction.
        let _ = match &name {
            Some(id) => client.sql.end_transaction(id.clone(), EndTransaction::Rollback).await,
            None => client.sql.execute_update("ROLLBACK".to_owned(), None).await.map(|_| ()),
        };
        return Outcome::RolledBack;
    }
    let ended = match name {
        Some(id) => client.sql.end_transaction(id, EndTransaction::Commit).await,
        None => client.sql.execute_update("COMMIT".to_owned(), None).await.map(|_| ()),
    };
    match ended {
        Ok(()) => Outcome::Committed,
        Err(e) if is_refusal(&e) => Outcome::RolledBack,
        Err(_) => Outcome::Unknown,
    }
}

/// Whether an error says that nothing was committed.
fn is_refusal(e: &arrow_flight::error::FlightError) -> bool {
    let text = e.to_string();
    text.contains("rolled back") || text.contains("retry")
}

async fn run(
    client: &mut Client,
    name: &Name,
    op: &mut Op,
    rng: &mut SmallRng,
) -> arrow_flight::error::Result<()> {
    match op {
        Op::Append(list, n) => {
            let sql = format!(
                "INSERT INTO lists VALUES ({list}, '{n}') ON CONFLICT (id) DO UPDATE SET items = lists.items || ',' || excluded.items"
            );
            client.sql.execute_update(sql, name.clone()).await?;
        }
        Op::Read(list, found) => {
            // By the key, past the planner, or by a scan.
            let zero = if rng.random_bool(0.5) { "" } else { " + 0" };
            let sql = format!("SELECT items FROM lists WHERE id{zero} = {list}");
            let info = client.sql.execute(sql, name.clone()).await?;
            let ticket = info.endpoint[0].ticket.clone().unwrap();
            let batches: Vec<_> = client.sql.do_get(ticket).await?.try_collect().await?;
            let items = batches.iter().flat_map(|b| b.column(0).as_string::<i32>().iter());
            let items: Vec<&str> = items.flatten().collect();
            *found = Some(match items.first() {
                Some(text) => text.split(',').map(|n| n.parse().unwrap()).collect(),
                None => Vec::new(),
            });
        }
    }
    Ok(())
}

/// Checks a history; says which anomalies it has.
fn anomalies(history: &str, model: &str) -> (Valid, Vec<String>) {
    let history = History::from_json(history).unwrap_or_else(|e| panic!("{e}"));
    let opts = Opts {
        models: vec![model.to_owned()],
        timeout: Duration::from_secs(20),
        ..Opts::default()
    };
    let report = check(&history, Workload::ListAppend, &opts);
    (report.valid, report.anomaly_types)
}

#[tokio::test(flavor = "multi_thread")]
async fn histories_have_no_anomaly_that_snapshot_isolation_forbids() {
    let seed = std::env::var("OMENDB_TEST_SEED")
        .map_or_else(|_| rand::random::<u32>().into(), |seed| seed.parse::<u64>().unwrap());
    println!("OMENDB_TEST_SEED={seed}");
    let full = std::env::var("OMENDB_TEST_SCALE").is_ok_and(|scale| scale == "full");
    let (transactions, kills) = if full { (100_000, 100) } else { (400, 3) };
    let mut server = Process::start();
    let run = Arc::new(Run {
        port: server.port,
        history: Mutex::default(),
        appended: AtomicU64::new(0),
        committed: AtomicUsize::new(0),
        processes: AtomicUsize::new(0),
        transactions,
    });
    let mut first = run.connect().await;
    first.update("CREATE TABLE lists (id BIGINT PRIMARY KEY, items TEXT NOT NULL)").await;
    drop(first);
    let clients: Vec<_> = (0..CLIENTS as u64)
        .map(|i| {
            let (run, rng) = (Arc::clone(&run), SmallRng::seed_from_u64(seed ^ (i << 32)));
            tokio::spawn(async move { run.client(rng).await })
        })
        .collect();
    for kill in 1..=kills {
        while run.committed.load(Ordering::Relaxed) < transactions * kill / (kills + 1) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        server = tokio::task::spawn_blocking(move || {
            server.kill_and_start();
            server
        })
        .await
        .unwrap();
    }
    for client in clients {
        client.await.unwrap();
    }
    let history = run.history.lock().join("\n");
    let (valid, found) = anomalies(&history, "strong-snapshot-isolation");
    if valid != Valid::True {
        let path = std::env::temp_dir().join(format!("omendb-history-{seed}.jsonl"));
        std::fs::write(&path, &history).unwrap();
        panic!("{valid:?}: {found:?}; the history is in {}", path.display());
    }
}

/// The checker finds what it is to find: a transaction is `(kind, operations)` in order of completion, all concurrent.
#[test]
fn planted_anomalies_are_found() {
    let history = |transactions: &[(&str, &[Op])]| {
        let started = transactions.iter().enumerate().map(|(p, (_, ops))| {
            let ops: Vec<Op> = ops
                .iter()
                .map(|op| match op {
                    Op::Read(list, _) => Op::Read(*list, None),
                    append => append.clone(),
                })
                .collect();
            line("invoke", p, &ops)
        });
        let ended = transactions.iter().enumerate().map(|(p, (kind, ops))| line(kind, p, ops));
        started.chain(ended).collect::<Vec<_>>().join("\n")
    };
    let append = Op::Append;
    let read = |list, found: &[u64]| Op::Read(list, Some(found.to_vec()));
    let lost_update = history(&[
        ("ok", &[append(0, 1)]),
        ("ok", &[read(0, &[1]), append(0, 2)]),
        ("ok", &[read(0, &[1]), append(0, 3)]),
        ("ok", &[read(0, &[1, 2, 3])]),
    ]);
    let read_skew =
        history(&[("ok", &[append(0, 1), append(1, 1)]), ("ok", &[read(0, &[]), read(1, &[1])])]);
    let phantom = history(&[
        ("ok", &[append(0, 1)]),
        ("ok", &[read(1, &[]), append(0, 2)]),
        ("ok", &[read(0, &[1, 2]), append(1, 1), append(2, 1)]),
        ("ok", &[read(1, &[]), read(2, &[1])]),
        ("ok", &[read(1, &[1]), read(0, &[1, 2])]),
    ]);
    let aborted_read = history(&[("fail", &[append(0, 1)]), ("ok", &[read(0, &[1])])]);
    let intermediate_read =
        history(&[("ok", &[append(0, 1), append(0, 2)]), ("ok", &[read(0, &[1])])]);
    let write_skew = history(&[
        ("ok", &[read(0, &[]), read(1, &[]), append(0, 1)]),
        ("ok", &[read(0, &[]), read(1, &[]), append(1, 1)]),
        ("ok", &[read(0, &[1]), read(1, &[1])]),
    ]);
    for (name, history, expected) in [
        ("lost update", &lost_update, "lost-update"),
        ("read skew", &read_skew, "G-single-item"),
        ("phantom", &phantom, "G-single-item"),
        ("aborted read", &aborted_read, "G1a"),
        ("intermediate read", &intermediate_read, "G1b"),
    ] {
        let (valid, found) = anomalies(history, "snapshot-isolation");
        assert_eq!(valid, Valid::False, "{name}");
        assert!(found.iter().any(|f| f == expected), "{name}: {found:?}");
    }
    assert_eq!(
        anomalies(&write_skew, "snapshot-isolation").0,
        Valid::True,
        "write skew is allowed"
    );
    assert_eq!(anomalies(&write_skew, "serializable").0, Valid::False);
}
