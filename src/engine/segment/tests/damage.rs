//! Index files that are damaged in each of their parts, and hostile ones whose checksums are right.

use std::ops::Range;

use super::keys::{KEYS, write_wide};
use super::*;

const ROWS: usize = 6_000;
const PATH: &str = "/data/tables/7/42.idx";
const TRAILER: usize = 80;

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// The parts of an index file, as `docs/file-format.md` has them.
struct Parts {
    chunks: Range<usize>,
    filters: Range<usize>,
    /// Number of chunks, and length and checksum of each.
    places: Range<usize>,
    /// The same of the parts of filters, and their table.
    filter_places: Range<usize>,
    model: Range<usize>,
    blocks: Range<usize>,
    trailer: Range<usize>,
}

impl Parts {
    fn of(file: &[u8]) -> Self {
        let trailer = file.len() - TRAILER;
        let chunks = 16..16 + u32_at(file, trailer + 40);
        let filters = chunks.end..chunks.end + u32_at(file, trailer + 60);
        let directory_end = filters.end + u32_at(file, trailer + 52);
        let chunk_count = u32_at(file, filters.end);
        let places = filters.end..filters.end + 4 + 8 * chunk_count;
        let table = places.end + 4 + 8 * u32_at(file, places.end);
        let filter_places = places.end..table + 4 + 4 * chunk_count;
        Self {
            model: filter_places.end..directory_end,
            blocks: directory_end..trailer,
            trailer: trailer..file.len(),
            chunks,
            filters,
            places,
            filter_places,
        }
    }

    fn all(&self) -> Vec<Range<usize>> {
        let Self { chunks, filters, places, filter_places, model, blocks, trailer } = self;
        let rest = [chunks, filters, places, filter_places, model, blocks, trailer];
        std::iter::once(0..16).chain(rest.map(Range::clone)).collect()
    }
}

fn flip(file: &mut [u8], at: usize, bits: u8) {
    file[at] ^= bits;
}

/// Makes all checksums right again.
fn sign(file: &mut [u8]) {
    let parts = Parts::of(file);
    let put = |file: &mut [u8], at: usize, crc: u32| {
        file[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    };
    let filter_table = parts.filter_places.end - 4 - 4 * u32_at(file, parts.places.start);
    let sections = [
        (&parts.chunks, parts.places.start + 4..parts.places.end),
        (&parts.filters, parts.filter_places.start + 4..filter_table),
    ];
    for (section, entries) in sections {
        let mut offset = section.start;
        for entry in entries.step_by(8) {
            let end = offset + u32_at(file, entry);
            // Lengths may be damaged, too.
            if let Some(chunk) = file[..section.end].get(offset..end) {
                let crc = crc32c::crc32c(chunk);
                put(file, entry + 4, crc);
            }
            offset = end;
        }
    }
    let trailer = parts.trailer.start;
    let directory = crc32c::crc32c(&file[parts.places.start..parts.model.end]);
    put(file, trailer + 36, directory);
    let blocks = crc32c::crc32c(&file[parts.blocks]);
    put(file, trailer + 32, blocks);
    let own = crc32c::crc32c(&file[trailer..trailer + TRAILER - 12]);
    put(file, trailer + TRAILER - 12, own);
}

#[test]
fn damage_in_every_part_is_noticed_and_the_index_made_anew() {
    for key in KEYS {
        let (fs, store) = memory_store(64 << 20);
        let written = write_wide(&store, key, ROWS);
        let sound = fs.contents(PATH.as_ref()).unwrap();
        let mut copy = sound.clone();
        sign(&mut copy);
        assert!(copy == sound, "the parts are where the test believes them");
        for (part, range) in Parts::of(&sound).all().into_iter().enumerate() {
            assert!(!range.is_empty(), "{key:?}: part {part}");
            let step = range.len().div_ceil(12);
            for at in range.clone().step_by(step).chain([range.end - 1]) {
                let mut damaged = sound.clone();
                flip(&mut damaged, at, if at % 2 == 0 { 1 } else { 0x80 });
                fs.set_contents(PATH.as_ref(), &damaged);
                let segment = written.open_cold();
                let error = segment.verify().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
                assert!(error.message().contains("42.idx"), "{error}");
                // A filter is read to find keys in chunks that are not in memory.
                let some: Vec<u32> = (0..ROWS as u32).step_by(487).collect();
                let wanted = written.keys.take(&some).unwrap();
                let found = segment.locate_batch(&wanted, FilterUse::Read).unwrap();
                assert_eq!(found, (some, vec![true; wanted.len()]), "{key:?}: byte {at}");
                for row in (0..ROWS).step_by(487) {
                    let found = segment.find(&written.keys.get(row)).unwrap();
                    assert_eq!(found, (row as u64, true), "{key:?}: byte {at}");
                }
                let keys = segment.keys(0..ROWS as u64).unwrap();
                assert!((0..ROWS).all(|i| keys.get(i) == written.keys.get(i)), "byte {at}");
                // Checksums of the data's blocks are asked for with the data.
                segment.column(FieldId(3), 0).unwrap();
                let after = fs.contents(PATH.as_ref()).unwrap();
                assert!(after == sound, "{key:?}: written anew after damage at byte {at}");
                segment.verify().unwrap();
            }
        }
    }
}

/// A byte, four bytes, or the lengths of two neighbouring chunks.
fn tamper(file: &mut [u8], mut random: impl FnMut(usize) -> usize) {
    let parts = Parts::of(file);
    let count = u32_at(file, parts.places.start);
    for _ in 0..1 + random(4) {
        let range = match random(6) {
            0 => parts.chunks.clone(),
            4 => parts.filters.clone(),
            // But for the number of parts, by which the test itself finds the rest.
            5 => parts.filter_places.start + 4..parts.filter_places.end,
            1 if count > 1 => {
                let entry = parts.places.start + 4 + 8 * random(count - 1);
                let (a, b) = (u32_at(file, entry), u32_at(file, entry + 8));
                let moved = random(b + 1);
                file[entry..entry + 4].copy_from_slice(&((a + moved) as u32).to_le_bytes());
                file[entry + 8..entry + 12].copy_from_slice(&((b - moved) as u32).to_le_bytes());
                continue;
            }
            _ => parts.model.clone(),
        };
        // The beginnings have the numbers that everything else hangs on.
        let reach = if random(2) == 0 { range.len().min(200) } else { range.len() };
        let at = range.start + random(reach);
        match random(3) {
            0 => flip(file, at, 1 << random(8)),
            1 => file[at] = [0, 1, 0x7f, 0x80, 0xff][random(5)],
            _ => {
                let value = [0, 1, u32::MAX, 1 << 31, 4096, 65_536][random(6)];
                let to = (at + 4).min(range.end);
                file[at..to].copy_from_slice(&value.to_le_bytes()[..to - at]);
            }
        }
    }
    sign(file);
}

#[test]
fn hostile_files_with_right_checksums_do_no_harm() {
    for key in KEYS {
        let (fs, store) = memory_store(64 << 20);
        let written = write_wide(&store, key, ROWS);
        let sound = fs.contents(PATH.as_ref()).unwrap();
        let mut state = 7u64;
        let mut random = move |below: usize| {
            state =
                state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
            ((u128::from(state) * below as u128) >> 64) as usize
        };
        let few = written.keys.take(&[0, 17, 2_999, 3_000, 5_999]).unwrap();
        let mut accepted = 0;
        for trial in 0..300 {
            let mut file = sound.clone();
            tamper(&mut file, &mut random);
            fs.set_contents(PATH.as_ref(), &file);
            let segment = written.open_cold();
            let sane = |at: u64| assert!(at <= ROWS as u64, "{key:?}: trial {trial}: row {at}");
            // Wrong answers cannot be helped where the checksums are right; all else can.
            for row in [0, 1, 2_999, 4_500, 5_999, random(ROWS)] {
                let wanted = written.keys.get(row);
                segment.find(&wanted).map_or_else(refused, |(at, _)| sane(at));
                segment.lower_bound(&wanted).map_or_else(refused, sane);
                segment.upper_bound(&wanted).map_or_else(refused, sane);
            }
            let batch = segment.find_batch(&few);
            batch.map_or_else(refused, |(at, _)| at.into_iter().for_each(|at| sane(at.into())));
            let cold = written.open_cold();
            let batch = cold.locate_batch(&few, FilterUse::Read);
            batch.map_or_else(refused, |(at, _)| at.into_iter().for_each(|at| sane(at.into())));
            let keys = segment.keys(0..ROWS as u64);
            keys.map_or_else(refused, |keys| assert_eq!(keys.len(), ROWS));
            accepted += usize::from(fs.contents(PATH.as_ref()).unwrap() == file);
        }
        assert!(accepted >= 15, "{key:?}: {accepted} files were taken as they were");
    }
}

fn refused(error: crate::engine::Error) {
    assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
}
