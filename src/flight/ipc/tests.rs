use arrow::array::types::{Int8Type, Int32Type};
use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, DictionaryArray, FixedSizeBinaryArray,
    Float64Array, Int64Array, ListArray, NullArray, StringArray, StringViewArray, StructArray,
};
use arrow::datatypes::{DataType, Field};
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow::ipc::{CompressionType, MetadataVersion};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

type Message = (Vec<u8>, Vec<u8>);

fn encode(batch: &RecordBatch, compression: Option<CompressionType>) -> Vec<Message> {
    let options = IpcWriteOptions::try_new(64, false, MetadataVersion::V5)
        .unwrap()
        .try_with_compression(compression)
        .unwrap();
    let generator = IpcDataGenerator::default();
    let mut tracker = DictionaryTracker::new(false);
    let schema = generator.schema_to_bytes_with_dictionary_tracker(
        batch.schema_ref(),
        &mut tracker,
        &options,
    );
    let mut context = IpcWriteContext::default();
    let (dictionaries, rows) =
        generator.encode(batch, &mut tracker, &options, &mut context).unwrap();
    std::iter::once(schema)
        .chain(dictionaries)
        .chain([rows])
        .map(|e| (e.ipc_message, e.arrow_data))
        .collect()
}

fn decode(messages: &[Message], limit: u64) -> Result<RecordBatch, Status> {
    let mut decoder = Decoder::new(limit);
    for (header, body) in messages {
        if let Decoded::Batch(batch) = decoder.decode(header, body.clone().into())? {
            return Ok(batch);
        }
    }
    Err(bad("no batch"))
}

fn sample(rows: usize) -> RecordBatch {
    let text =
        |i: usize| (!i.is_multiple_of(3)).then(|| format!("value number {i} of this column"));
    let texts: Vec<Option<String>> = (0..rows).map(text).collect();
    let ints: ArrayRef = Arc::new(
        (0..rows).map(|i| (!i.is_multiple_of(5)).then_some(i as i64)).collect::<Int64Array>(),
    );
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(
        (0..rows).map(|i| (i % 4 != 0).then(|| vec![Some(i as i32); i % 3])),
    );
    let structs = StructArray::from(vec![
        (Arc::new(Field::new("a", DataType::Int64, true)), Arc::clone(&ints)),
        (
            Arc::new(Field::new("b", DataType::Utf8, true)),
            Arc::new(StringArray::from(texts.clone())) as ArrayRef,
        ),
    ]);
    let fixed = FixedSizeBinaryArray::try_from_iter((0..rows).map(|i| [i as u8; 5])).unwrap();
    let dictionary: DictionaryArray<Int8Type> =
        (0..rows).map(|i| Some(["red", "green", "blue"][i % 3])).collect();
    RecordBatch::try_from_iter_with_nullable([
        ("int", ints, true),
        ("text", Arc::new(StringArray::from(texts.clone())) as ArrayRef, true),
        ("view", Arc::new(StringViewArray::from_iter(texts)) as ArrayRef, true),
        (
            "float",
            Arc::new(Float64Array::from_iter_values((0..rows).map(|i| i as f64))) as ArrayRef,
            true,
        ),
        (
            "bool",
            Arc::new((0..rows).map(|i| Some(i % 2 == 0)).collect::<BooleanArray>()) as ArrayRef,
            true,
        ),
        (
            "binary",
            Arc::new(BinaryArray::from_iter_values((0..rows).map(|i| vec![7_u8; i % 9])))
                as ArrayRef,
            true,
        ),
        (
            "decimal",
            Arc::new(Decimal128Array::from_iter_values((0..rows).map(|i| i as i128))) as ArrayRef,
            true,
        ),
        ("list", Arc::new(lists) as ArrayRef, true),
        ("struct", Arc::new(structs) as ArrayRef, true),
        ("fixed", Arc::new(fixed) as ArrayRef, true),
        ("null", Arc::new(NullArray::new(rows)) as ArrayRef, true),
        ("dictionary", Arc::new(dictionary) as ArrayRef, true),
    ])
    .unwrap()
}

const CODECS: [Option<CompressionType>; 3] =
    [None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)];

#[test]
fn what_is_well_formed_comes_through() {
    for codec in CODECS {
        for rows in [1, 2, 1000] {
            let batch = sample(rows);
            assert_eq!(
                decode(&encode(&batch, codec), 64 << 20).unwrap(),
                batch,
                "{codec:?} {rows}"
            );
            let slice = batch.slice(rows / 3, rows / 2);
            assert_eq!(
                decode(&encode(&slice, codec), 64 << 20).unwrap(),
                slice,
                "{codec:?} {rows}"
            );
        }
    }
}

#[test]
fn a_forged_length_is_refused_before_anything_is_allocated() {
    for codec in [CompressionType::LZ4_FRAME, CompressionType::ZSTD] {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![7; 1000]));
        let batch = RecordBatch::try_from_iter([("k", column)]).unwrap();
        let mut messages = encode(&batch, Some(codec));
        let body = &mut messages.last_mut().unwrap().1;
        assert_eq!(body[..8], 8000_u64.to_le_bytes());
        for forged in [i64::MAX, 1 << 40, -2] {
            body[..8].copy_from_slice(&forged.to_le_bytes());
            let refused = decode(&encode_with_body(&batch, codec, body), 64 << 20).unwrap_err();
            assert!(
                matches!(
                    refused.code(),
                    tonic::Code::ResourceExhausted | tonic::Code::InvalidArgument
                ),
                "{refused:?}"
            );
        }
        body.truncate(0);
    }
}

fn encode_with_body(batch: &RecordBatch, codec: CompressionType, body: &[u8]) -> Vec<Message> {
    let mut messages = encode(batch, Some(codec));
    messages.last_mut().unwrap().1 = body.to_vec();
    messages
}

#[test]
fn a_frame_that_grows_past_its_claim_is_refused() {
    let column: ArrayRef = Arc::new(Int64Array::from(vec![0; 1 << 20]));
    let batch = RecordBatch::try_from_iter([("k", column)]).unwrap();
    let mut messages = encode(&batch, Some(CompressionType::LZ4_FRAME));
    // 8 MiB of zeros that claim to be 8 bytes, where 1 MiB is allowed.
    messages.last_mut().unwrap().1[..8].copy_from_slice(&8_u64.to_le_bytes());
    assert!(decode(&messages, 1 << 20).is_err());
}

#[test]
fn a_message_larger_than_the_limit_is_refused() {
    let messages = encode(&sample(10_000), None);
    let refused = decode(&messages, 10_000).unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
}

#[test]
fn a_stream_without_a_schema_and_one_with_two_are_refused() {
    let messages = encode(&sample(3), None);
    assert!(decode(&messages[messages.len() - 1..], 1 << 20).is_err());
    let twice = [&messages[..1], &messages[..]].concat();
    assert!(decode(&twice, 1 << 20).is_err());
}

#[test]
fn deeply_nested_schemas_are_refused() {
    let mut t = DataType::Int64;
    for _ in 0..MAX_DEPTH {
        t = DataType::List(Arc::new(Field::new("item", t, true)));
    }
    let schema = arrow::datatypes::Schema::new(vec![Field::new("deep", t, true)]);
    let messages = encode(&RecordBatch::new_empty(Arc::new(schema)), None);
    assert!(decode(&messages, 1 << 20).is_err());
}

/// Messages with random damage: whatever happens, the decoder answers, and what it lets through can be read.
#[test]
fn damage_is_answered_and_never_fatal() {
    let full = std::env::var("OMENDB_TEST_SCALE").is_ok_and(|v| v == "full");
    let rounds = if full { 100_000 } else { 6_000 };
    let seed = std::env::var("OMENDB_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(7);
    println!("seed {seed} (OMENDB_TEST_SEED)");
    let mut rng = StdRng::seed_from_u64(seed);
    let originals: Vec<Vec<Message>> =
        CODECS.iter().map(|codec| encode(&sample(50), *codec)).collect();
    let mut accepted = 0;
    for _ in 0..rounds {
        let mut messages = originals[rng.random_range(0..originals.len())].clone();
        for _ in 0..rng.random_range(1..4) {
            let message = rng.random_range(0..messages.len());
            damage(&mut messages[message], &mut rng);
        }
        if let Ok(batch) = decode(&messages, 1 << 20) {
            accepted += 1;
            let text = arrow::util::pretty::pretty_format_batches(&[
                batch.slice(0, batch.num_rows().min(60))
            ]);
            assert!(text.is_ok() || text.is_err());
        }
    }
    assert!(accepted < rounds, "some damage must be noticed");
}

fn damage(message: &mut Message, rng: &mut StdRng) {
    let part =
        if rng.random_bool(0.7) || message.1.is_empty() { &mut message.0 } else { &mut message.1 };
    if part.is_empty() {
        return;
    }
    let at = rng.random_range(0..part.len());
    match rng.random_range(0..4) {
        0 => part[at] ^= 1 << rng.random_range(0..8),
        1 => part[at] = rng.random(),
        2 => part.truncate(at),
        _ => {
            // A whole number, where offsets and lengths are.
            let start = at & !7;
            let value: i64 = match rng.random_range(0..5) {
                0 => -1,
                1 => i64::MAX,
                2 => i64::from(i32::MAX) + 1,
                3 => rng.random_range(0..100_000),
                _ => rng.random(),
            };
            for (byte, new) in part[start..].iter_mut().zip(value.to_le_bytes()) {
                *byte = new;
            }
        }
    }
}
