//! Key sets with the shapes of the published ones.

/// A set by name.
pub struct Set {
    pub name: &'static str,
    /// Ascending keys, about as many as asked for.
    pub make: fn(usize) -> Vec<u64>,
}

pub const SETS: &[Set] = &[
    Set { name: "sequential", make: |n| (0..n as u64).map(|i| 1_000_000 + i).collect() },
    Set { name: "jittered", make: jittered },
    Set { name: "uniform", make: uniform },
    Set { name: "bursty", make: bursty },
    Set { name: "lognormal", make: lognormal },
    Set { name: "books", make: books },
    Set { name: "wiki", make: wiki },
    Set { name: "fb", make: fb },
    Set { name: "osm", make: osm },
    Set { name: "exponential", make: exponential },
    Set { name: "steps", make: steps },
];

/// SplitMix64: the same keys in every run.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// In (0, 1].
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}

fn sorted(mut keys: Vec<u64>) -> Vec<u64> {
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Microseconds of an event each millisecond, late by up to a quarter of one.
fn jittered(n: usize) -> Vec<u64> {
    let mut r = Random::new(1);
    (0..n as u64).map(|i| 1_700_000_000_000_000 + i * 1_000 + r.below(250)).collect()
}

fn uniform(n: usize) -> Vec<u64> {
    let mut r = Random::new(2);
    sorted((0..n).map(|_| r.next()).collect())
}

/// Microseconds of events whose rate changes by up to 1,000 times every few hundred events.
fn bursty(n: usize) -> Vec<u64> {
    let mut r = Random::new(3);
    let (mut at, mut mean) = (1_700_000_000_000_000.0, 1_000.0);
    let keys = (0..n).map(|_| {
        if r.below(300) == 0 {
            mean = 10f64.powf(1.0 + 3.0 * r.unit());
        }
        at += 1.0 - mean * r.unit().ln();
        at as u64
    });
    sorted(keys.collect())
}

fn lognormal(n: usize) -> Vec<u64> {
    let mut r = Random::new(4);
    sorted((0..n).map(|_| ((2.0 * r.normal()).exp() * 1e12) as u64).collect())
}

fn books(n: usize) -> Vec<u64> {
    let mut r = Random::new(5);
    let mut at = 0.0;
    let keys = (0..n).map(|i| {
        let x = i as f64 / n as f64;
        let density = 1.0 + 0.8 * (7.0 * x).sin() + 4.0 * x * x;
        at += 1.0 + 1_000.0 * (1.4 * r.normal()).exp() * density;
        at as u64
    });
    sorted(keys.collect())
}

/// Seconds, of which a third repeat.
fn wiki(n: usize) -> Vec<u64> {
    let mut r = Random::new(6);
    let (mut at, mut jump) = (1_000_000_000.0f64, 1.0);
    let mut keys: Vec<u64> = (0..n)
        .map(|_| {
            if r.below(50_000) == 0 {
                jump = 0.3 + 3.0 * r.unit();
            }
            let day = (at / 86_400.0 * std::f64::consts::TAU).sin();
            let week = (at / 604_800.0 * std::f64::consts::TAU).sin();
            at -= jump * r.unit().ln() / (1.0 + 0.5 * day + 0.2 * week);
            at as u64
        })
        .collect();
    keys.sort_unstable();
    keys
}

fn fb(n: usize) -> Vec<u64> {
    let mut r = Random::new(7);
    let mut at = 0u64;
    let mut keys: Vec<u64> = (0..n.saturating_sub(21))
        .map(|_| {
            at += (r.unit().powf(-1.0 / 0.8) as u64).clamp(1, 1_000_000_000);
            at
        })
        .collect();
    keys.extend((0..21).map(|i| u64::MAX - (i << 55) - r.below(1 << 50)));
    sorted(keys)
}

/// Cells of clusters and of scattered points along a Hilbert curve of 30 bits a side.
fn osm(n: usize) -> Vec<u64> {
    let mut r = Random::new(8);
    let side = (1u64 << 30) as f64;
    let clusters: Vec<(f64, f64, f64)> = (0..20_000)
        .map(|_| (side * r.unit(), side * r.unit(), 10f64.powf(3.0 + 3.0 * r.unit())))
        .collect();
    let harmonic = (clusters.len() as f64).ln();
    let keys = (0..n).map(|_| {
        let (x, y) = if r.below(10) == 0 {
            (side * r.unit(), side * r.unit())
        } else {
            // Zipf(1) by inverting the logarithm that the harmonic numbers grow by.
            let (x, y, size) =
                clusters[((harmonic * r.unit()).exp() as usize - 1) % clusters.len()];
            (x + size * r.normal(), y + size * r.normal())
        };
        hilbert(x.clamp(0.0, side - 1.0) as u64, y.clamp(0.0, side - 1.0) as u64) << 2
    });
    sorted(keys.collect())
}

fn hilbert(mut x: u64, mut y: u64) -> u64 {
    let mut d = 0;
    for bit in (0..30).rev() {
        let (rx, ry) = ((x >> bit) & 1, (y >> bit) & 1);
        d = d << 2 | ((3 * rx) ^ ry);
        if ry == 0 {
            if rx == 1 {
                (x, y) = (!x & ((1 << 30) - 1), !y & ((1 << 30) - 1));
            }
            (x, y) = (y, x);
        }
    }
    d
}

/// Every magnitude alike, with 0 and the largest key.
fn exponential(n: usize) -> Vec<u64> {
    let mut r = Random::new(9);
    let mut keys: Vec<u64> = (0..n).map(|_| r.next() >> r.below(40)).collect();
    keys.extend([0, u64::MAX]);
    sorted(keys)
}

/// Dense runs of 100, far apart, around 2^63.
fn steps(n: usize) -> Vec<u64> {
    (0..n as u64).map(|i| (1 << 63) - (n as u64) * 5_000 + i / 100 * 1_000_000 + i % 100).collect()
}
