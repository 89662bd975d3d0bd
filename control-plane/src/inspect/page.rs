//! A page of a proxy, in the pieces in which it comes.

use super::agents::AskError;
use crate::load::{HeldAnswer, HeldLoad};

/// Of one page.
pub const MAX_PAGE: usize = 64 << 20;
/// What a piece takes beside its bytes.
const PIECE: usize = 64;

/// See the module.
pub struct ProxyPage {
    pieces: Vec<Vec<u8>>,
    bytes: usize,
    held: HeldLoad,
}

impl ProxyPage {
    pub fn new(held: HeldLoad) -> Self {
        ProxyPage {
            pieces: Vec::new(),
            bytes: 0,
            held,
        }
    }

    /// # Errors
    /// When the page is too large, or all that are open are.
    pub fn add(&mut self, piece: Vec<u8>) -> Result<(), AskError> {
        if piece.is_empty() {
            return Ok(());
        }
        let bytes = self.bytes.saturating_add(piece.len());
        if bytes > MAX_PAGE {
            return Err(AskError::Large);
        }
        self.held.grow(piece.capacity().saturating_add(PIECE))?;
        self.bytes = bytes;
        self.pieces.push(piece);
        Ok(())
    }

    pub fn first(&self) -> Option<u8> {
        self.pieces.first().and_then(|piece| piece.first()).copied()
    }

    /// What is to be written.
    pub fn into_answer(self) -> HeldAnswer {
        HeldAnswer::new(self.pieces, self.held.answered())
    }
}
