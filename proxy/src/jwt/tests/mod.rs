//! - `signers`: keys that sign tokens; the rest: tests by what is tested

mod keys;
mod shared;
mod signatures;
mod signers;
mod tokens;
