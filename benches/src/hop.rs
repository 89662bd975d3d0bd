//! What one proxy of a case has to do, whichever program it is.

/// What travels on a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    Tcp,
    Http1,
    Http2,
    /// TCP in CONNECT over HTTP/2.
    Tunnel,
}

/// One proxy: where it listens, where it sends, and how.
#[derive(Clone, Copy, Debug)]
pub struct Hop {
    pub name: &'static str,
    pub listen: u16,
    pub to: u16,
    pub down: Wire,
    pub up: Wire,
    /// Mutual TLS towards the caller.
    pub tls_down: bool,
    pub tls_up: bool,
    /// Hybrid post-quantum key exchange, where there is TLS.
    pub post_quantum: bool,
    /// Everything that a mesh runs: see [`crate::bootstrap`].
    pub full: bool,
    /// The listener's buffers, where the program has a knob for that.
    pub large_buffers: bool,
}

/// Where the load goes.
pub const FRONT: u16 = 20_001;
/// Between the two of a pair.
pub const MIDDLE: u16 = 20_002;

impl Hop {
    /// A proxy on its own.
    pub fn alone(down: Wire, up: Wire, to: u16) -> Self {
        Hop {
            name: "proxy",
            listen: FRONT,
            to,
            down,
            up,
            tls_down: false,
            tls_up: false,
            post_quantum: false,
            full: false,
            large_buffers: false,
        }
    }

    /// A pair of sidecars, `between` over mutual TLS, `outside` in the clear. The called side
    /// comes first: it is started first.
    pub fn pair(outside: Wire, between: Wire, to: u16) -> Vec<Self> {
        let called = Hop {
            name: "called",
            listen: MIDDLE,
            down: between,
            tls_down: true,
            ..Hop::alone(between, outside, to)
        };
        let calling = Hop {
            name: "calling",
            up: between,
            tls_up: true,
            ..Hop::alone(outside, between, MIDDLE)
        };
        vec![called, calling]
    }
}
