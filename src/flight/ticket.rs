//! Handles and tickets. They stand alone: any connection may use them, and after a restart too, except
//! those that name rows or parameters which the server keeps for a while.

use std::hash::{DefaultHasher, Hash, Hasher};

use arrow::datatypes::Schema;
use arrow_flight::sql::{ProstMessageExt, TicketStatementQuery};
use prost::Message;
use tonic::Status;
use uuid::Uuid;

use super::proto;

/// Names what the server keeps for a handle or a ticket.
pub(crate) type Id = [u8; 16];

/// A random name.
pub(crate) fn new_id() -> Id {
    Uuid::new_v4().into_bytes()
}

/// The name in a message.
pub(crate) fn parse_id(bytes: &[u8]) -> Result<Id, Status> {
    bytes
        .try_into()
        .map_err(|_| Status::invalid_argument("the handle or ticket is not one of this server"))
}

/// The bytes of a Flight ticket that holds `ticket`.
pub(crate) fn encode(ticket: &proto::Ticket) -> arrow_flight::Ticket {
    let wrapped = TicketStatementQuery { statement_handle: ticket.encode_to_vec().into() };
    arrow_flight::Ticket { ticket: wrapped.as_any().encode_to_vec().into() }
}

/// What a statement handle of [`encode`] holds.
pub(crate) fn decode(handle: &[u8]) -> Result<proto::Ticket, Status> {
    let ticket = proto::Ticket::decode(handle).map_err(|e| {
        Status::invalid_argument(format!("the ticket is not one of this server: {e}"))
    })?;
    parse_id(&ticket.id)?;
    Ok(ticket)
}

/// A prepared statement's handle.
pub(crate) fn decode_prepared(handle: &[u8]) -> Result<proto::PreparedHandle, Status> {
    let handle = proto::PreparedHandle::decode(handle).map_err(|e| {
        Status::invalid_argument(format!(
            "the prepared statement's handle is not one of this server: {e}"
        ))
    })?;
    parse_id(&handle.id)?;
    if handle.statement.is_none() {
        return Err(Status::invalid_argument("the prepared statement's handle holds no statement"));
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
