//! An API server, and control planes of it.

pub use anyam_tests_kube::{Bench, Control, NAMESPACE, of_chart, openssl};

use std::time::Duration;

pub const TIMEOUT: Duration = Duration::from_secs(60);
