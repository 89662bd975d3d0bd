//! Indices of endpoints in as few bytes as their number allows: tables of them are large.

pub(super) enum Indices {
    U8(Box<[u8]>),
    U16(Box<[u16]>),
    U32(Box<[u32]>),
}

impl Indices {
    /// `indices`: all of them below `count`.
    pub fn new(indices: impl Iterator<Item = u32>, count: usize) -> Self {
        // Each fits into what was chosen by `count`.
        match count {
            0..=0x100 => Self::U8(indices.map(|index| index as u8).collect()),
            0x101..=0x1_0000 => Self::U16(indices.map(|index| index as u16).collect()),
            _ => Self::U32(indices.collect()),
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::U8(list) => list.len(),
            Self::U16(list) => list.len(),
            Self::U32(list) => list.len(),
        }
    }

    pub fn get(&self, at: usize) -> Option<usize> {
        match self {
            Self::U8(list) => list.get(at).map(|index| usize::from(*index)),
            Self::U16(list) => list.get(at).map(|index| usize::from(*index)),
            Self::U32(list) => usize::try_from(*list.get(at)?).ok(),
        }
    }
}
