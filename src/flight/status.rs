//! The only place that maps errors to gRPC codes.

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::sql::{self, Code as Sql};

/// The trailer that carries the SQLSTATE of an error.
pub(crate) const SQLSTATE_TRAILER: &str = "x-omendb-sqlstate";

/// The status that a client gets for a SQL error.
pub(crate) fn from_sql(e: sql::Error) -> Status {
    new(e.code(), e.to_string())
}

/// The status for an Arrow error on data that this server made itself.
pub(crate) fn from_arrow(e: arrow::error::ArrowError) -> Status {
    new(Sql::InternalError, format!("arrow: {e}"))
}

/// The status for a message that could not be received or decoded. tonic calls what a client did wrong internal.
pub(crate) fn of_message(status: Status) -> Status {
    match status.code() {
        Code::Internal => new(Sql::ProtocolViolation, status.message()),
        _ => status,
    }
}

/// Puts right a response that tonic made by itself, of a message that it could not decode: all others carry a SQLSTATE.
pub(crate) fn mend<B>(mut response: http::Response<B>) -> http::Response<B> {
    const INTERNAL: &str = "13";
    let headers = response.headers_mut();
    if headers.get(Status::GRPC_STATUS).is_some_and(|code| code == INTERNAL)
        && !headers.contains_key(SQLSTATE_TRAILER)
    {
        headers.insert(Status::GRPC_STATUS, (Code::InvalidArgument as i32).into());
        let sqlstate = http::HeaderValue::from_static(Sql::ProtocolViolation.sqlstate());
        headers.insert(SQLSTATE_TRAILER, sqlstate);
    }
    response
}

/// The status of a code, with its SQLSTATE in a trailer. Logs what an operator must know of; messages carry names and
/// offsets, never values of SQL literals.
pub(crate) fn new(code: Sql, message: impl Into<String>) -> Status {
    let (grpc, message) = (grpc(code), message.into());
    match grpc {
        Code::DataLoss | Code::Internal | Code::Unknown => tracing::error!("{message}"),
        Code::Unavailable | Code::ResourceExhausted => tracing::warn!("{message}"),
        _ => {}
    }
    let mut metadata = MetadataMap::new();
    metadata.insert(SQLSTATE_TRAILER, MetadataValue::from_static(code.sqlstate()));
    Status::with_metadata(grpc, message, metadata)
}

/// What a gRPC client is told of a code: whether to mend the call, to wait, or to begin its transaction anew.
fn grpc(code: Sql) -> Code {
    match code {
        Sql::ProtocolViolation
        | Sql::CardinalityViolation
        | Sql::DataException
        | Sql::StringDataRightTruncation
        | Sql::NumericValueOutOfRange
        | Sql::NullValueNotAllowed
        | Sql::InvalidDatetimeFormat
        | Sql::DatetimeFieldOverflow
        | Sql::DivisionByZero
        | Sql::InvalidArgumentForLogarithm
        | Sql::InvalidArgumentForPowerFunction
        | Sql::InvalidTimeZoneDisplacementValue
        | Sql::InvalidEscapeCharacter
        | Sql::InvalidEscapeSequence
        | Sql::InvalidRowCountInLimitClause
        | Sql::InvalidRowCountInResultOffsetClause
        | Sql::InvalidRegularExpression
        | Sql::InvalidParameterValue
        | Sql::InvalidTextRepresentation
        | Sql::NotNullViolation
        | Sql::SyntaxError
        | Sql::SyntaxErrorOrAccessRuleViolation
        | Sql::ReservedName
        | Sql::UndefinedFunction
        | Sql::UndefinedParameter
        | Sql::UndefinedObject
        | Sql::AmbiguousColumn
        | Sql::GroupingError
        | Sql::DatatypeMismatch
        | Sql::WrongObjectType
        | Sql::InvalidColumnReference
        | Sql::IndeterminateDatatype => Code::InvalidArgument,
        Sql::InvalidSqlStatementName
        | Sql::InvalidCursorName
        | Sql::InvalidSavepointSpecification
        | Sql::InvalidCatalogName
        | Sql::InvalidSchemaName
        | Sql::UndefinedColumn
        | Sql::UndefinedTable => Code::NotFound,
        Sql::UniqueViolation
        | Sql::DuplicateColumn
        | Sql::DuplicateTable
        | Sql::DuplicateSchema => Code::AlreadyExists,
        Sql::InvalidTransactionState
        | Sql::ActiveSqlTransaction
        | Sql::NoActiveSqlTransaction
        | Sql::InFailedSqlTransaction
        | Sql::ReadOnlySqlTransaction
        | Sql::ObjectInUse => Code::FailedPrecondition,
        Sql::OutOfMemory
        | Sql::TooManyConnections
        | Sql::ConfigurationLimitExceeded
        | Sql::InsufficientResources
        | Sql::ProgramLimitExceeded
        | Sql::StatementTooComplex => Code::ResourceExhausted,
        Sql::ReadOnlyDatabase | Sql::LockNotAvailable | Sql::AdminShutdown => Code::Unavailable,
        Sql::FeatureNotSupported => Code::Unimplemented,
        Sql::InvalidAuthorization => Code::Unauthenticated,
        Sql::InsufficientPrivilege => Code::PermissionDenied,
        Sql::SerializationFailure => Code::Aborted,
        Sql::QueryCanceled => Code::Cancelled,
        Sql::StatementTimeout => Code::DeadlineExceeded,
        Sql::TransactionResolutionUnknown => Code::Unknown,
        Sql::DataCorrupted => Code::DataLoss,
        Sql::IoError | Sql::InternalError => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine;

    #[test]
    fn codes_say_what_a_client_can_do() {
        let conflict = from_sql(engine::Error::new(engine::ErrorKind::Conflict, "t: key 1").into());
        assert_eq!((conflict.code(), conflict.message()), (Code::Aborted, "t: key 1"));
        let missing: sql::Error =
            engine::Error::not_found("no table \"t\"").of(engine::ObjectKind::Table).into();
        assert_eq!(from_sql(missing).code(), Code::NotFound);
        let syntax = from_sql(sql::Error::new(Sql::SyntaxError, "expected FROM"));
        assert_eq!(syntax.code(), Code::InvalidArgument);
        assert_eq!(syntax.metadata().get(SQLSTATE_TRAILER).unwrap(), "42601");
    }
}
