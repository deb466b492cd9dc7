use std::sync::Barrier;
use std::sync::atomic::AtomicU32;

use super::*;

impl Cached for u8 {}
impl Cached for u32 {}

fn key(segment: u64, group: u32) -> CacheKey {
    CacheKey { segment: SegmentId(segment), part: CachePart::Column { group, field: FieldId(1) } }
}

fn load(cache: &Cache, key: CacheKey, bytes: usize) -> bool {
    let mut missed = false;
    cache
        .get_or_load(key, || {
            missed = true;
            Ok((0u8, bytes))
        })
        .unwrap();
    missed
}

#[test]
fn keeps_within_its_budget() {
    let cache = Cache::new(1000);
    for i in 0..500 {
        load(&cache, key(1, i % 77), 10 + i as usize % 90);
        assert!(cache.used_bytes() <= 1000);
    }
    assert!(cache.used_bytes() > 800, "budget left unused: {}", cache.used_bytes());
    assert!(load(&cache, key(2, 0), 1001));
    assert!(load(&cache, key(2, 0), 1001), "what exceeds the budget is not kept");
}

#[test]
fn a_scan_leaves_what_is_used_often() {
    let cache = Cache::new(1000);
    for _ in 0..4 {
        for i in 0..50 {
            load(&cache, key(1, i), 10);
        }
    }
    for i in 0..10_000 {
        load(&cache, key(2, i), 10);
    }
    let kept = (0..50).filter(|i| cache.contains(&key(1, *i))).count();
    assert_eq!(kept, 50);
}

#[test]
fn what_comes_back_soon_is_kept() {
    let cache = Cache::new(100);
    for i in 0..15 {
        load(&cache, key(1, i), 10);
    }
    assert!(load(&cache, key(1, 2), 10), "evicted by those that came after");
    for i in 20..200 {
        load(&cache, key(1, i), 10);
    }
    assert!(cache.contains(&key(1, 2)));
}

#[test]
fn removes_a_segment() {
    let cache = Cache::new(1000);
    for i in 0..20 {
        load(&cache, key(u64::from(i % 2), i), 10);
    }
    cache.remove_segment(SegmentId(1));
    assert_eq!(cache.used_bytes(), 100);
    assert!((0..20).all(|i| cache.contains(&key(u64::from(i % 2), i)) == (i % 2 == 0)));
    // Accounts stay right after more use.
    for i in 0..500 {
        load(&cache, key(3, i), 10);
    }
    assert!(cache.used_bytes() <= 1000);
    cache.remove_segment(SegmentId(3));
    cache.remove_segment(SegmentId(0));
    assert_eq!(cache.used_bytes(), 0);
}

#[test]
fn a_load_is_not_kept_when_its_segment_was_removed_meanwhile() {
    let cache = Cache::new(1000);
    cache
        .get_or_load(key(1, 0), || {
            cache.remove_segment(SegmentId(1));
            Ok((1u8, 10))
        })
        .unwrap();
    assert!(!cache.contains(&key(1, 0)));
    assert_eq!(cache.used_bytes(), 0);
}

#[test]
fn concurrent_misses_load_once() {
    let cache = Cache::new(1000);
    let (loads, barrier) = (AtomicU32::new(0), Barrier::new(4));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                barrier.wait();
                for i in 0..50 {
                    let value = cache
                        .get_or_load(key(1, i), || {
                            loads.fetch_add(1, Ordering::Relaxed);
                            std::thread::yield_now();
                            Ok((i, 1))
                        })
                        .unwrap();
                    assert_eq!(*value, i);
                }
            });
        }
    });
    assert_eq!(loads.load(Ordering::Relaxed), 50);
}

#[test]
fn a_failed_or_panicking_load_can_be_tried_again() {
    let cache = Cache::new(1000);
    let failed = cache.get_or_load::<u8>(key(1, 0), || Err(Error::corruption("damaged")));
    assert_eq!(failed.unwrap_err().message(), "damaged");
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        cache.get_or_load::<u8>(key(1, 0), || panic!("in a load"))
    }));
    assert!(panicked.is_err());
    assert!(load(&cache, key(1, 0), 1));
    assert!(!load(&cache, key(1, 0), 1));
    assert_eq!(cache.stats().hit_count, 1);
}

/// A value that is always in use where the cache does not see it.
struct Busy;

impl Cached for Busy {
    fn take_uses(&self) -> u8 {
        u8::MAX
    }
}

#[test]
fn values_in_use_elsewhere_stay_unless_nothing_else_can_go() {
    let cache = Cache::new(1000);
    for i in 0..5 {
        cache.get_or_load(key(1, i), || Ok((Busy, 100))).unwrap();
    }
    for i in 0..500 {
        load(&cache, key(2, i), 100);
    }
    assert!((0..5).all(|i| cache.contains(&key(1, i))));
    for i in 5..50 {
        cache.get_or_load(key(1, i), || Ok((Busy, 100))).unwrap();
        assert!(cache.used_bytes() <= 1000);
    }
}
