//! The messages of `proto/omendb/flight.proto`.

#![allow(missing_docs, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/omendb.flight.rs"));
