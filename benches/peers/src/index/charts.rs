//! Charts of the learned index: latency against the number of keys, the distribution of errors, and the model
//! over the keys.

use std::path::Path;

use super::CHART_SETS;
use super::measure::{Measured, Mode};
use crate::chart::{Axis, Chart, colour};

pub fn write(dir: &Path, all: &[Measured]) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    latency(all).write(&dir.join("index-latency.svg"))?;
    let typical = typical(all);
    errors(&typical).write(&dir.join("index-errors.svg"))?;
    models(&typical).write(&dir.join("index-model.svg"))
}

/// Of each set the size next to 10 million, the larger one of the usual sizes for which all sets are measured.
fn typical(all: &[Measured]) -> Vec<&Measured> {
    let mut chosen: Vec<&Measured> = Vec::new();
    for m in all {
        let far = |m: &Measured| m.rows.abs_diff(10_000_000);
        match chosen.iter_mut().find(|c| c.set == m.set) {
            Some(c) if far(m) < far(c) => *c = m,
            Some(_) => {}
            None => chosen.push(m),
        }
    }
    chosen
}

/// A column of panels for each set, a row for each way to look up.
fn latency(all: &[Measured]) -> Chart {
    const LEFT: f64 = 44.0;
    const STEP: f64 = 168.0;
    let modes =
        [(Mode::Single, "single"), (Mode::Dependent, "dependent"), (Mode::Batched, "batched")];
    let sets: Vec<&str> =
        CHART_SETS.into_iter().filter(|set| all.iter().any(|m| m.set == *set)).collect();
    let mut chart = Chart::new(LEFT + STEP * sets.len() as f64 + 6.0, 3.0 * 170.0 + 60.0);
    chart.text(
        LEFT,
        16.0,
        "start",
        13,
        "Nanoseconds a lookup of a present key, by the number of keys",
    );
    let names: Vec<&str> =
        all.first().map_or(Vec::new(), |m| m.contenders.iter().map(|c| c.name).collect());
    let entries: Vec<(&str, &str)> =
        names.iter().enumerate().map(|(i, name)| (*name, colour(i))).collect();
    chart.legend(LEFT, 36.0, &entries);
    for (row, (mode, label)) in modes.into_iter().enumerate() {
        for (column, set) in sets.iter().enumerate() {
            let rect = [LEFT + STEP * column as f64, 64.0 + 170.0 * row as f64, STEP - 34.0, 122.0];
            let mut panel = chart.panel(rect, Axis::log(1e4, 1e8), Axis::log(4.0, 4000.0));
            panel.title(&format!("{set}, {label}"));
            panel.x_ticks(&[(1e4, "10 k"), (1e6, "1 M"), (1e8, "100 M")]);
            panel.y_ticks(&[(10.0, "10"), (100.0, "100"), (1000.0, "1,000")]);
            for (i, name) in names.iter().enumerate().rev() {
                let points: Vec<(f64, f64)> = all
                    .iter()
                    .filter(|m| m.set == *set)
                    .filter_map(|m| Some((m.rows as f64, m.time(name, mode)?)))
                    .collect();
                panel.line(&points, colour(i), if i == 0 { 2.6 } else { 1.4 }, 1.0);
            }
        }
    }
    chart
}

/// Rows of four panels.
fn grid(count: usize, height: f64) -> (Chart, impl Fn(usize) -> [f64; 4]) {
    const COLUMNS: usize = 4;
    let rows = count.div_ceil(COLUMNS);
    let chart = Chart::new(COLUMNS as f64 * 200.0 + 40.0, rows as f64 * height + 40.0);
    (chart, move |i: usize| {
        let (row, column) = (i / COLUMNS, i % COLUMNS);
        [44.0 + 200.0 * column as f64, 52.0 + height * row as f64, 160.0, height - 50.0]
    })
}

fn errors(typical: &[&Measured]) -> Chart {
    /// Bits of the largest distance that has a bar.
    const BITS: usize = 11;
    let (mut chart, place) = grid(typical.len(), 140.0);
    chart.text(
        44.0,
        16.0,
        "start",
        13,
        "Share of keys by their distance from where the model expects them, in rows",
    );
    for (i, m) in typical.iter().enumerate() {
        let mut panel =
            chart.panel(place(i), Axis::linear(0.0, (BITS + 1) as f64), Axis::linear(0.0, 1.0));
        panel.title(&format!(
            "{}: mean {:.1}, max {}",
            m.set, m.stats.mean_error, m.stats.max_error
        ));
        panel.y_ticks(&[(0.0, "0"), (0.5, "50 %"), (1.0, "100 %")]);
        panel.x_ticks(&[(0.5, "0"), (1.5, "1"), (4.5, "8"), (7.5, "64"), (10.5, "512")]);
        let shares: Vec<f64> = (0..=BITS)
            .map(|bits| m.errors.get(bits).map_or(0.0, |count| *count as f64 / m.rows as f64))
            .collect();
        panel.bars(&shares, colour(0));
    }
    chart
}

fn models(typical: &[&Measured]) -> Chart {
    let (mut chart, place) = grid(2 * typical.len(), 130.0);
    chart.text(
        44.0,
        16.0,
        "start",
        13,
        "Share of rows below a key, and the model over it: all keys, and a thousand in the middle",
    );
    chart.legend(44.0, 32.0, &[("keys", colour(1)), ("model", colour(0))]);
    for (i, m) in typical.iter().enumerate() {
        for (j, (curve, what)) in m.curves.iter().zip(["", ": 1,000 keys"]).enumerate() {
            let rect = place(2 * i + j);
            let mut panel = chart.panel(rect, Axis::linear(0.0, 1.0), Axis::linear(0.0, 1.0));
            panel.title(&format!("{}{what}", m.set));
            panel.y_ticks(&[(0.0, "0"), (1.0, "1")]);
            let line = |pick: fn(&(f64, f64, f64)) -> f64| -> Vec<(f64, f64)> {
                curve.iter().map(|point| (point.0, pick(point))).collect()
            };
            panel.line(&line(|p| p.2), colour(1), 4.0, 0.55);
            panel.line(&line(|p| p.1), colour(0), 1.2, 1.0);
        }
    }
    chart
}
