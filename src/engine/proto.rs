//! The messages of `proto/omendb/storage.proto`, and what they stand for in the engine.
//!
//! Whatever the bytes are, decoding them ends in a value or an error of kind
//! [`Corruption`](super::ErrorKind::Corruption); it never panics and never takes more memory than a
//! small multiple of the bytes.

mod ipc;
#[cfg(test)]
pub(super) mod tests;

use std::sync::Arc;

use arrow::array::{Array, BinaryArray};
use arrow::buffer::{Buffer, OffsetBuffer};
use arrow::datatypes::Schema;
use roaring::RoaringBitmap;

use super::error::{Error, Result};
use super::id::{FieldId, SegmentId, TableId};
use super::key::{EncodedKey, KeyColumn};
use super::schema::{Column, KeyKind, TableMeta, TableName};
use super::segment::SegmentMeta;

pub(super) use generated::*;
pub(super) use ipc::{decode_batch, encode_batch};

#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/omendb.storage.rs"));
}

/// The error for a field that must be there.
pub(super) fn missing(what: &str) -> Error {
    Error::corruption(format!("{what} is missing"))
}

pub(super) fn encode_table_name(name: &super::schema::TableName) -> generated::TableName {
    generated::TableName { schema: name.schema.to_string(), name: name.name.to_string() }
}

pub(super) fn decode_table_name(name: Option<generated::TableName>) -> Result<TableName> {
    let name = name.ok_or_else(|| missing("a table's name"))?;
    Ok(TableName::new(name.schema, name.name))
}

pub(super) fn encode_view(name: &TableName, sql: &str) -> generated::View {
    generated::View { name: Some(encode_table_name(name)), sql: sql.to_owned() }
}

pub(super) fn decode_view(view: generated::View) -> Result<(TableName, String)> {
    Ok((decode_table_name(view.name)?, view.sql))
}

pub(super) fn encode_table(table: &TableMeta) -> Result<generated::Table> {
    let mut columns = Vec::with_capacity(table.columns.len());
    for column in &table.columns {
        let initial = match &column.initial {
            None => None,
            Some(value) => Some(ipc::encode_value(value)?),
        };
        columns.push(generated::Column {
            id: column.id.0,
            default_sql: column.default_sql.clone(),
            initial,
        });
    }
    let key_kind = match table.key_kind {
        KeyKind::Primary => generated::KeyKind::Primary,
        KeyKind::Cluster => generated::KeyKind::Cluster,
        KeyKind::RowId => generated::KeyKind::RowId,
    };
    Ok(generated::Table {
        id: table.id.0,
        name: Some(encode_table_name(&table.name)),
        arrow_schema: ipc::encode_schema(&table.arrow_schema())?,
        columns,
        key_kind: key_kind.into(),
        key: table.key.iter().map(|id| id.0).collect(),
        next_field_id: table.next_field_id.0,
        version: table.version,
    })
}

pub(super) fn decode_table(table: generated::Table) -> Result<TableMeta> {
    let key_kind = match table.key_kind() {
        generated::KeyKind::Primary => KeyKind::Primary,
        generated::KeyKind::Cluster => KeyKind::Cluster,
        generated::KeyKind::RowId => KeyKind::RowId,
        generated::KeyKind::Unspecified => return Err(missing("a table's kind of key")),
    };
    let name = decode_table_name(table.name)?;
    let schema = ipc::decode_schema(&table.arrow_schema)?;
    let columns = decode_columns(&schema, table.columns)
        .map_err(|e| e.context(format_args!("table {name}")))?;
    let key: Vec<FieldId> = table.key.into_iter().map(FieldId).collect();
    if let Some(id) = key.iter().find(|id| !columns.iter().any(|c| c.id == **id)) {
        return Err(Error::corruption(format!("table {name}: key column {id} does not exist")));
    }
    if key.is_empty() != (key_kind == KeyKind::RowId) {
        return Err(Error::corruption(format!("table {name}: key columns do not fit its kind")));
    }
    Ok(TableMeta {
        id: TableId(table.id),
        name,
        columns,
        key_kind,
        key,
        next_field_id: FieldId(table.next_field_id),
        version: table.version,
    })
}

fn decode_columns(schema: &Schema, columns: Vec<generated::Column>) -> Result<Vec<Column>> {
    if schema.fields().len() != columns.len() {
        return Err(Error::corruption(format!(
            "has {} columns but a schema of {} fields",
            columns.len(),
            schema.fields().len()
        )));
    }
    let decode = |(field, column): (&Arc<_>, generated::Column)| {
        let initial = match column.initial {
            None => None,
            Some(bytes) => Some(ipc::decode_value(bytes, field)?),
        };
        Ok(Column {
            id: FieldId(column.id),
            field: Arc::clone(field),
            default_sql: column.default_sql,
            initial,
        })
    };
    schema.fields().iter().zip(columns).map(decode).collect()
}

fn encode_key(key: &EncodedKey) -> generated::EncodedKey {
    use generated::encoded_key::Key;
    let key = match key {
        EncodedKey::U64(k) => Key::U64(*k),
        EncodedKey::U128(k) => Key::U128(k.to_le_bytes().to_vec()),
        EncodedKey::Bytes(k) => Key::Bytes(k.to_vec()),
    };
    generated::EncodedKey { key: Some(key) }
}

fn decode_key(key: Option<generated::EncodedKey>) -> Result<EncodedKey> {
    use generated::encoded_key::Key;
    match key.and_then(|k| k.key).ok_or_else(|| missing("a key"))? {
        Key::U64(k) => Ok(EncodedKey::U64(k)),
        Key::U128(k) => match k.try_into() {
            Ok(bytes) => Ok(EncodedKey::U128(u128::from_le_bytes(bytes))),
            Err(_) => Err(Error::corruption("a 128-bit key does not have 16 bytes")),
        },
        Key::Bytes(k) => Ok(EncodedKey::Bytes(k.into())),
    }
}

pub(super) fn encode_segment(meta: &SegmentMeta) -> generated::Segment {
    generated::Segment {
        id: meta.id.0,
        table: meta.table.0,
        row_count: meta.row_count,
        min_key: Some(encode_key(&meta.min_key)),
        max_key: Some(encode_key(&meta.max_key)),
        row_ids: meta.row_ids.map(|(first, last)| generated::RowIdRange { first, last }),
        row_group_rows: meta.row_group_rows,
        data_bytes: meta.data_bytes,
        data_crc: meta.data_crc,
        index_bytes: meta.index_bytes,
        index_crc: meta.index_crc,
        fields: meta.fields.iter().map(|id| id.0).collect(),
        leaf_count: meta.leaf_count,
        max_error: meta.max_error,
        mean_error: meta.mean_error,
        train_nanos: meta.train_nanos,
        trained_at_micros: meta.trained_at_micros,
    }
}

pub(super) fn decode_segment(segment: Option<generated::Segment>) -> Result<SegmentMeta> {
    let segment = segment.ok_or_else(|| missing("a segment"))?;
    Ok(SegmentMeta {
        id: SegmentId(segment.id),
        table: TableId(segment.table),
        row_count: segment.row_count,
        min_key: decode_key(segment.min_key)?,
        max_key: decode_key(segment.max_key)?,
        row_ids: segment.row_ids.map(|range| (range.first, range.last)),
        row_group_rows: segment.row_group_rows,
        data_bytes: segment.data_bytes,
        data_crc: segment.data_crc,
        index_bytes: segment.index_bytes,
        index_crc: segment.index_crc,
        fields: segment.fields.into_iter().map(FieldId).collect(),
        leaf_count: segment.leaf_count,
        max_error: segment.max_error,
        mean_error: segment.mean_error,
        train_nanos: segment.train_nanos,
        trained_at_micros: segment.trained_at_micros,
    })
}

/// The portable bytes of a bitmap; none for an empty one.
pub(super) fn encode_bitmap(bitmap: &RoaringBitmap) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if !bitmap.is_empty() {
        bytes.reserve_exact(bitmap.serialized_size());
        bitmap.serialize_into(&mut bytes)?;
    }
    Ok(bytes)
}

pub(super) fn decode_bitmap(mut bytes: &[u8]) -> Result<RoaringBitmap> {
    if bytes.is_empty() {
        return Ok(RoaringBitmap::new());
    }
    let bitmap = RoaringBitmap::deserialize_from(&mut bytes)
        .map_err(|e| Error::corruption(format!("a bitmap of rows is damaged: {e}")))?;
    if !bytes.is_empty() {
        return Err(Error::corruption("a bitmap of rows has bytes after its end"));
    }
    Ok(bitmap)
}

/// Checks that a segment has the rows that `deleted` names.
pub(super) fn check_deleted(meta: &SegmentMeta, deleted: &RoaringBitmap) -> Result<()> {
    match deleted.max() {
        Some(last) if u64::from(last) >= meta.row_count => Err(Error::corruption(format!(
            "row {last} of segment {} is deleted, which has {} rows",
            meta.id, meta.row_count
        ))),
        _ => Ok(()),
    }
}

pub(super) fn encode_keys(keys: &KeyColumn) -> Result<generated::Keys> {
    use generated::keys::Keys;
    let keys = match keys {
        KeyColumn::U64(keys) => Keys::U64(generated::U64Keys { keys: keys.clone() }),
        KeyColumn::U128(keys) => {
            Keys::U128(keys.iter().flat_map(|k| k.to_le_bytes()).collect::<Vec<u8>>())
        }
        KeyColumn::Bytes(keys) => {
            if keys.null_count() > 0 {
                return Err(Error::internal("a key to delete is NULL"));
            }
            let offsets = keys.value_offsets();
            let (first, last) = (offsets[0] as usize, offsets[keys.len()] as usize);
            Keys::Bytes(generated::BytesKeys {
                lengths: offsets.windows(2).map(|w| (w[1] - w[0]) as u32).collect(),
                data: keys.value_data()[first..last].to_vec(),
            })
        }
    };
    Ok(generated::Keys { keys: Some(keys) })
}

pub(super) fn decode_keys(keys: Option<generated::Keys>) -> Result<KeyColumn> {
    use generated::keys::Keys;
    match keys.and_then(|k| k.keys).ok_or_else(|| missing("a list of keys"))? {
        Keys::U64(keys) => Ok(KeyColumn::U64(keys.keys)),
        Keys::U128(bytes) => {
            let (keys, rest) = bytes.as_chunks::<16>();
            if !rest.is_empty() {
                return Err(Error::corruption("128-bit keys do not have 16 bytes each"));
            }
            Ok(KeyColumn::U128(keys.iter().map(|k| u128::from_le_bytes(*k)).collect()))
        }
        Keys::Bytes(keys) => {
            let total: u64 = keys.lengths.iter().map(|n| u64::from(*n)).sum();
            if total != keys.data.len() as u64 || i32::try_from(total).is_err() {
                return Err(Error::corruption(format!(
                    "keys of {total} bytes together have {} bytes of data",
                    keys.data.len()
                )));
            }
            let offsets = OffsetBuffer::from_lengths(keys.lengths.iter().map(|n| *n as usize));
            let array = BinaryArray::try_new(offsets, Buffer::from_vec(keys.data), None)
                .map_err(|e| Error::corruption(format!("keys: {e}")))?;
            Ok(KeyColumn::Bytes(array))
        }
    }
}
