//! What was sent of a request's body, for another attempt.

use bytes::Bytes;

use super::{PIECE, RequestPump};

pub(super) enum Replay {
    Off,
    Keep {
        pieces: Vec<Bytes>,
        size: usize,
        limit: usize,
    },
    /// Some of it is gone: no further attempt.
    Lost,
}

impl RequestPump {
    /// Keeps up to `limit` bytes for another attempt; only before anything moved.
    pub fn keep(&mut self, limit: usize) {
        match &mut self.replay {
            Replay::Off if self.bytes == 0 => {
                self.replay = Replay::Keep {
                    pieces: Vec::new(),
                    size: 0,
                    limit,
                };
            }
            Replay::Keep { limit: kept, .. } => *kept = limit.max(*kept),
            _ => {}
        }
    }

    /// No further attempt will be made.
    pub fn stop_keeping(&mut self) {
        // What is kept and was not given to this attempt is still to be sent.
        let is_given = match &self.replay {
            Replay::Keep { pieces, .. } => self.given >= pieces.len(),
            Replay::Off | Replay::Lost => true,
        };
        if is_given {
            self.replay = match self.bytes {
                0 => Replay::Off,
                _ => Replay::Lost,
            };
        }
    }

    /// Everything sent so far can be sent again.
    pub fn can_replay(&self) -> bool {
        match self.replay {
            Replay::Keep { .. } => true,
            Replay::Off => self.bytes == 0,
            Replay::Lost => false,
        }
    }

    pub(super) fn remember(&mut self, data: &Bytes) {
        let Replay::Keep {
            pieces,
            size,
            limit,
        } = &mut self.replay
        else {
            self.replay = Replay::Lost;
            return;
        };
        let kept = size.saturating_add(data.len().max(PIECE));
        if kept > *limit {
            self.replay = Replay::Lost;
            return;
        }
        *size = kept;
        pieces.push(data.clone());
        self.given = pieces.len();
    }
}
