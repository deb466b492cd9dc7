//! Handles and tickets. They stand alone: any connection may use them, and after a restart too, except
//! those that name rows or parameters which the server keeps for a while.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Bound;

use arrow::datatypes::Schema;
use arrow_flight::sql::{ProstMessageExt, TicketStatementQuery};
use prost::Message;
use tonic::Status;
use uuid::Uuid;

use super::proto::{self, key::Form};
use super::status;
use crate::engine::{EncodedKey, KeyRange};
use crate::sql::Code;

/// Names what the server keeps for a handle or a ticket.
pub(crate) type Id = [u8; 16];

/// A random name.
pub(crate) fn new_id() -> Id {
    Uuid::new_v4().into_bytes()
}

/// The name in a message.
pub(crate) fn parse_id(bytes: &[u8]) -> Result<Id, Status> {
    bytes.try_into().map_err(|_| {
        status::new(Code::ProtocolViolation, "the handle or ticket is not one of this server")
    })
}

/// The bytes of a Flight ticket that holds `ticket`.
pub(crate) fn encode(ticket: &proto::Ticket) -> arrow_flight::Ticket {
    let wrapped = TicketStatementQuery { statement_handle: ticket.encode_to_vec().into() };
    arrow_flight::Ticket { ticket: wrapped.as_any().encode_to_vec().into() }
}

/// What a statement handle of [`encode`] holds.
pub(crate) fn decode(handle: &[u8]) -> Result<proto::Ticket, Status> {
    let ticket = proto::Ticket::decode(handle).map_err(|e| {
        status::new(Code::ProtocolViolation, format!("the ticket is not one of this server: {e}"))
    })?;
    parse_id(&ticket.id)?;
    Ok(ticket)
}

/// Part of a table's keys, as tickets carry it.
pub(crate) fn encode_part(part: &KeyRange) -> proto::KeyPart {
    let key = |bound: &Bound<EncodedKey>| match bound {
        Bound::Included(key) | Bound::Excluded(key) => Some(proto::Key {
            form: Some(match key {
                EncodedKey::U64(key) => Form::U64(*key),
                EncodedKey::U128(key) => Form::U128(key.to_be_bytes().to_vec()),
                EncodedKey::Bytes(key) => Form::Bytes(key.to_vec()),
            }),
        }),
        Bound::Unbounded => None,
    };
    proto::KeyPart { begin: key(&part.lower), end: key(&part.upper) }
}

/// The part of a table's keys that a ticket names.
pub(crate) fn decode_part(part: &proto::KeyPart) -> Result<KeyRange, Status> {
    let key = |key: &Option<proto::Key>| -> Result<_, Status> {
        let Some(form) = key.as_ref().and_then(|key| key.form.clone()) else { return Ok(None) };
        Ok(Some(match form {
            Form::U64(key) => EncodedKey::U64(key),
            Form::U128(key) => {
                EncodedKey::U128(u128::from_be_bytes(key.try_into().map_err(|_| {
                    status::new(Code::ProtocolViolation, "the ticket's key is damaged")
                })?))
            }
            Form::Bytes(key) => EncodedKey::Bytes(key.into()),
        }))
    };
    Ok(KeyRange {
        lower: key(&part.begin)?.map_or(Bound::Unbounded, Bound::Included),
        upper: key(&part.end)?.map_or(Bound::Unbounded, Bound::Excluded),
    })
}

/// A prepared statement's handle.
pub(crate) fn decode_prepared(handle: &[u8]) -> Result<proto::PreparedHandle, Status> {
    let handle = proto::PreparedHandle::decode(handle).map_err(|e| {
        status::new(
            Code::ProtocolViolation,
            format!("the prepared statement's handle is not one of this server: {e}"),
        )
    })?;
    parse_id(&handle.id)?;
    if handle.statement.is_none() {
        return Err(status::new(
            Code::ProtocolViolation,
            "the prepared statement's handle holds no statement",
        ));
    }
    Ok(handle)
}

/// A fingerprint of a schema's names, types and nullability: 0 means none.
pub(crate) fn schema_hash(schema: &Schema) -> u64 {
    // DefaultHasher's keys are fixed, so the value holds across restarts of one build.
    let mut hasher = DefaultHasher::new();
    for field in schema.fields() {
        field.name().hash(&mut hasher);
        field.data_type().hash(&mut hasher);
        field.is_nullable().hash(&mut hasher);
    }
    hasher.finish().max(1)
}
