//! Records as messages.

use std::sync::Arc;

use prost::Message;

use super::{AddedSegment, WalOp, WalRecord};
use crate::engine::error::{Error, Result};
use crate::engine::id::{Generation, SegmentId, SeqNo, TableId};
use crate::engine::proto::{self, log_op::Op};

pub(super) fn encode(record: &WalRecord, out: &mut Vec<u8>) -> Result<()> {
    let ops = record.ops.iter().map(|op| Ok(proto::LogOp { op: Some(encode_op(op)?) }));
    let message =
        proto::LogRecord { seq: record.seq.0, ops: ops.collect::<Result<Vec<proto::LogOp>>>()? };
    out.reserve(message.encoded_len());
    message.encode(out).map_err(|e| Error::internal(format!("encoding a record of the log: {e}")))
}

pub(super) fn decode(bytes: &[u8]) -> Result<WalRecord> {
    let message = proto::LogRecord::decode(bytes)
        .map_err(|e| Error::corruption(format!("a record of the log: {e}")).with_source(e))?;
    let ops = message.ops.into_iter().map(|op| match op.op {
        Some(op) => decode_op(op),
        None => Err(Error::corruption("a record of the log has an operation of no known kind")),
    });
    Ok(WalRecord { seq: SeqNo(message.seq), ops: ops.collect::<Result<_>>()? })
}

fn encode_op(op: &WalOp) -> Result<Op> {
    Ok(match op {
        WalOp::PutTable(table) => Op::PutTable(proto::encode_table(table)?),
        WalOp::DropTable(table) => Op::DropTable(table.0),
        WalOp::PutSchema(name) => Op::PutSchema(name.clone()),
        WalOp::DropSchema(name) => Op::DropSchema(name.clone()),
        WalOp::PutView(name, sql) => Op::PutView(proto::encode_view(name, sql)),
        WalOp::DropView(name) => Op::DropView(proto::encode_table_name(name)),
        WalOp::Truncate(table) => Op::Truncate(table.0),
        WalOp::Rows { table, generation, batch } => Op::Rows(proto::Rows {
            table: table.0,
            generation: generation.0,
            batch: proto::encode_batch(batch)?,
        }),
        WalOp::DeleteKeys { table, keys, row_ids } => Op::DeleteKeys(proto::DeleteKeys {
            table: table.0,
            keys: Some(proto::encode_keys(keys)?),
            row_ids: row_ids.clone(),
        }),
        WalOp::DeletePositions { table, segment, positions } => {
            Op::DeletePositions(proto::DeletePositions {
                table: table.0,
                segment: segment.0,
                positions: proto::encode_bitmap(positions)?,
            })
        }
        WalOp::EditSegments { table, flushed_below, remove, add } => {
            Op::EditSegments(proto::EditSegments {
                table: table.0,
                flushed_below: flushed_below.map(|g| g.0),
                remove: remove.iter().map(|id| id.0).collect(),
                add: add.iter().map(encode_added).collect::<Result<_>>()?,
            })
        }
    })
}

fn decode_op(op: Op) -> Result<WalOp> {
    Ok(match op {
        Op::PutTable(table) => WalOp::PutTable(Arc::new(proto::decode_table(table)?)),
        Op::DropTable(table) => WalOp::DropTable(TableId(table)),
        Op::PutSchema(name) => WalOp::PutSchema(name),
        Op::DropSchema(name) => WalOp::DropSchema(name),
        Op::PutView(view) => {
            let (name, sql) = proto::decode_view(view)?;
            WalOp::PutView(name, sql)
        }
        Op::DropView(name) => WalOp::DropView(proto::decode_table_name(Some(name))?),
        Op::Truncate(table) => WalOp::Truncate(TableId(table)),
        Op::Rows(rows) => WalOp::Rows {
            table: TableId(rows.table),
            generation: Generation(rows.generation),
            batch: proto::decode_batch(rows.batch)?,
        },
        Op::DeleteKeys(delete) => decode_delete_keys(delete)?,
        Op::DeletePositions(delete) => WalOp::DeletePositions {
            table: TableId(delete.table),
            segment: SegmentId(delete.segment),
            positions: proto::decode_bitmap(&delete.positions)?,
        },
        Op::EditSegments(edit) => WalOp::EditSegments {
            table: TableId(edit.table),
            flushed_below: edit.flushed_below.map(Generation),
            remove: edit.remove.into_iter().map(SegmentId).collect(),
            add: edit.add.into_iter().map(decode_added).collect::<Result<_>>()?,
        },
    })
}

fn decode_delete_keys(delete: proto::DeleteKeys) -> Result<WalOp> {
    let keys = proto::decode_keys(delete.keys)?;
    if !delete.row_ids.is_empty() && delete.row_ids.len() != keys.len() {
        return Err(Error::corruption(format!(
            "a record of the log deletes {} keys with {} row ids",
            keys.len(),
            delete.row_ids.len()
        )));
    }
    Ok(WalOp::DeleteKeys { table: TableId(delete.table), keys, row_ids: delete.row_ids })
}

fn encode_added(added: &AddedSegment) -> Result<proto::AddedSegment> {
    Ok(proto::AddedSegment {
        segment: Some(proto::encode_segment(&added.meta)),
        deleted: proto::encode_bitmap(&added.deleted)?,
    })
}

fn decode_added(added: proto::AddedSegment) -> Result<AddedSegment> {
    let meta = proto::decode_segment(added.segment)?;
    let deleted = proto::decode_bitmap(&added.deleted)?;
    proto::check_deleted(&meta, &deleted)?;
    Ok(AddedSegment { meta, deleted })
}
