//! HTTP servers beside each other: who, what they are asked, and the client that
//! asks.

pub mod cases;
pub mod connection;
pub mod containers;
pub mod cores;
pub mod load;
pub mod report;
pub mod response;
pub mod running;
pub mod servers;
pub mod wasmtime;
