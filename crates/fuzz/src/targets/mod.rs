pub mod annotations;
pub mod config;
pub mod images;
pub mod inspect;
pub mod spec;
pub mod traces;
