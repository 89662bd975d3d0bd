//! The cryptography that every TLS context uses.

use std::sync::{Arc, LazyLock};

use rustls::crypto::aws_lc_rs::{self, cipher_suite as suite, kx_group as group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};

/// Cipher suites, groups and signature algorithms. Constant, but it has to be computed.
///
/// AES-128-GCM first, the fastest on both ends of a mesh. X25519MLKEM768 first, so that no future
/// quantum computer decrypts traffic recorded today; plain X25519 and P-256 for older peers.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let groups: Vec<&'static dyn SupportedKxGroup> = vec![
        group::X25519MLKEM768,
        group::X25519,
        group::SECP256R1,
        group::SECP384R1,
    ];
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            suite::TLS13_AES_128_GCM_SHA256,
            suite::TLS13_AES_256_GCM_SHA384,
            suite::TLS13_CHACHA20_POLY1305_SHA256,
            suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: groups,
        ..aws_lc_rs::default_provider()
    })
});

/// The cryptography that every context uses.
pub fn provider() -> &'static Arc<CryptoProvider> {
    &PROVIDER
}

/// Does the process's one-time work (entropy: some 50 ms of CPU), so that no connection waits for
/// it. To be called at the start, on a thread of its own.
pub fn warm_up() {
    let mut byte = [0u8];
    let drawn = provider().secure_random.fill(&mut byte);
    let exchanged = provider()
        .kx_groups
        .iter()
        .try_for_each(|group| group.start().map(drop));
    if drawn.is_err() || exchanged.is_err() {
        tracing::warn!("the random generator does not work yet; TLS handshakes will fail");
    }
}
