//! Stable addresses for services that were given none.
//!
//! A service's place is the hash of its name; when that is taken, the next one. What was allotted
//! is kept in a file, so that it survives a restart and does not depend on the order of arrival.
//! A service that is gone keeps its place until there is no other.
//!
//! The file is JSON, an object from name to place, and what came later: an object in each further
//! line, `null` for a place that was given to another. So a change costs what it adds; now and then
//! the file is written anew.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use serde::Deserialize;

use crate::model::manifest::object::Key;
use crate::state_file;

/// 240.240.0.0/16: reserved (RFC 1112), so in use by no other host.
const V4_NET: [u8; 2] = [240, 240];
/// Usable offsets in it: all but the first and the last address.
const V4_FIRST: u16 = 1;
const V4_LAST: u16 = u16::MAX - 1;
/// fdac:616e:7961:6d00::/64, a unique local prefix ("anyam").
const V6_NET: [u16; 4] = [0xfdac, 0x616e, 0x7961, 0x6d00];

/// Lines of the file beyond which it is written anew, besides one for each service.
const MAX_LINES: usize = 1000;

/// Places by `namespace/name`; `None`: it was given to another.
type Part = BTreeMap<String, Option<u16>>;

/// Why addresses could not be allotted or kept.
#[derive(Debug, thiserror::Error)]
pub enum VipError {
    #[error("{path}: {error}; services keep the addresses they have until this is mended")]
    File {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("{path}: {error}; remove the file to allot all addresses anew")]
    Malformed {
        path: PathBuf,
        error: serde_json::Error,
    },
}

/// The addresses allotted. One writer.
#[derive(Debug, Default)]
pub struct Vips {
    /// Offsets by `namespace/name`.
    allotted: BTreeMap<String, u16>,
    taken: HashMap<u16, String>,
    /// Services that are declared.
    declared: HashSet<String>,
    path: Option<PathBuf>,
    /// What the file does not have yet.
    unsaved: Part,
    /// Lines in the file; `None`: it has to be written anew.
    lines: Option<usize>,
}

impl Vips {
    /// In memory only.
    pub fn new() -> Self {
        Self::default()
    }

    /// As kept in `path`, which may not be there yet.
    ///
    /// # Errors
    /// When the file cannot be read or is not ours.
    pub fn load(path: &Path) -> Result<Self, VipError> {
        let mut vips = Vips {
            path: Some(path.to_owned()),
            ..Vips::default()
        };
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vips),
            Err(error) => {
                return Err(VipError::File {
                    path: path.to_owned(),
                    error,
                });
            }
        };
        let malformed = |error| VipError::Malformed {
            path: path.to_owned(),
            error,
        };
        let mut parts = serde_json::Deserializer::from_slice(&bytes);
        // The first part is renamed into place when it is whole, so this process never cut it.
        vips.take(Part::deserialize(&mut parts).map_err(malformed)?);
        for part in parts.into_iter() {
            match part {
                Ok(part) => vips.take(part),
                // The process ended, or the disk was full, while the last line was appended.
                // Services whose addresses were in it may be given others.
                Err(error) if error.is_eof() => break,
                Err(error) => return Err(malformed(error)),
            }
        }
        Ok(vips)
    }

    /// Whether none is allotted, nor was in an earlier run.
    pub fn is_empty(&self) -> bool {
        self.allotted.is_empty()
    }

    fn take(&mut self, part: Part) {
        for (name, offset) in part {
            match offset {
                Some(offset) => {
                    self.taken.insert(offset, name.clone());
                    self.allotted.insert(name, offset);
                }
                None => drop(self.allotted.remove(&name)),
            }
        }
    }

    /// The service is declared: its place is not given to another.
    pub fn keep(&mut self, key: &Key) {
        self.declared.insert(key.to_string());
    }

    /// The service is not declared any more.
    pub fn release(&mut self, key: &Key) {
        self.declared.remove(&key.to_string());
    }

    /// The addresses of a service, IPv4 first. Empty when all are allotted to declared services.
    pub fn of(&mut self, key: &Key) -> Vec<IpAddr> {
        self.keep(key);
        let name = key.to_string();
        let offset = match self.allotted.get(&name) {
            Some(offset) => *offset,
            None => match self.probe(&name) {
                Some(offset) => {
                    if let Some(before) = self.taken.insert(offset, name.clone()) {
                        self.allotted.remove(&before);
                        self.unsaved.insert(before, None);
                    }
                    self.unsaved.insert(name.clone(), Some(offset));
                    self.allotted.insert(name, offset);
                    offset
                }
                None => return Vec::new(),
            },
        };
        vec![v4(offset).into(), v6(offset).into()]
    }

    /// The first free place; else the first one of a service that is gone.
    fn probe(&self, name: &str) -> Option<u16> {
        let hash = digest(&SHA256, name.as_bytes());
        let &[high, low, ..] = hash.as_ref() else {
            return None;
        };
        let span = u32::from(V4_LAST - V4_FIRST) + 1;
        let start = u32::from(u16::from_be_bytes([high, low])) % span;
        let mut places = (0..span).map(|step| V4_FIRST + ((start + step) % span) as u16);
        let is_gone = |offset: &u16| {
            let holder = self.taken.get(offset);
            holder.is_none_or(|holder| !self.declared.contains(holder))
        };
        match self.taken.len() < span as usize {
            true => places.find(|offset| !self.taken.contains_key(offset)),
            false => places.find(is_gone),
        }
    }

    /// Writes what was allotted since the last time, readable by its owner only.
    ///
    /// # Errors
    /// When the file cannot be written; it is tried again the next time.
    pub fn save(&mut self) -> Result<(), VipError> {
        if self.unsaved.is_empty() {
            return Ok(());
        }
        let Some(path) = &self.path else {
            self.unsaved.clear();
            return Ok(());
        };
        let lines = self
            .lines
            .filter(|lines| *lines < MAX_LINES + self.allotted.len());
        let written = match lines {
            Some(lines) => append(path, &self.unsaved).map(|()| lines + 1),
            None => serde_json::to_vec(&self.allotted)
                .map_err(io::Error::from)
                .and_then(|all| state_file::replace(path, all))
                .map(|()| 1),
        };
        // After a failure it is unknown where the file ends.
        self.lines = written.as_ref().ok().copied();
        match written {
            Ok(_) => {
                self.unsaved.clear();
                Ok(())
            }
            Err(error) => Err(VipError::File {
                path: path.clone(),
                error,
            }),
        }
    }
}

fn append(path: &Path, more: &Part) -> io::Result<()> {
    let mut line = serde_json::to_vec(more)?;
    line.push(b'\n');
    let mut file = OpenOptions::new().append(true).open(path)?;
    file.write_all(&line)?;
    file.sync_data()
}

fn v4(offset: u16) -> Ipv4Addr {
    let [high, low] = offset.to_be_bytes();
    Ipv4Addr::new(V4_NET[0], V4_NET[1], high, low)
}

fn v6(offset: u16) -> Ipv6Addr {
    let [a, b, c, d] = V6_NET;
    Ipv6Addr::new(a, b, c, d, 0, 0, 0, offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn addresses_stay_over_a_restart_and_are_never_shared() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vips.json");
        let mut vips = Vips::load(&path).unwrap();
        let key = |n: u32| Key::new("shop", format!("s{n}"));
        let first: Vec<_> = (0..3000).map(|n| vips.of(&key(n))).collect();
        vips.save().unwrap();
        let distinct: std::collections::HashSet<_> = first.iter().flatten().collect();
        assert_eq!(distinct.len(), 6000);
        assert!(
            first
                .iter()
                .all(|ips| ips[0].to_string().starts_with("240.240."))
        );
        assert!(
            first
                .iter()
                .all(|ips| ips[1].to_string().starts_with("fdac:616e:7961:6d00::"))
        );
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );

        let mut again = Vips::load(&path).unwrap();
        let second: Vec<_> = (0..3000).rev().map(|n| again.of(&key(n))).collect();
        assert!(
            first.iter().eq(second.iter().rev()),
            "order does not matter"
        );
    }

    fn kept(path: &Path) -> BTreeMap<String, u16> {
        Vips::load(path).unwrap().allotted
    }

    #[test]
    fn a_change_appends_and_a_torn_line_costs_only_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vips.json");
        let mut vips = Vips::load(&path).unwrap();
        let key = |n: usize| Key::new("shop", format!("s{n}"));
        for n in 0..100 {
            vips.of(&key(n));
        }
        vips.save().unwrap();
        let whole = fs::read(&path).unwrap();
        vips.of(&key(100));
        vips.save().unwrap();
        let more = fs::read(&path).unwrap();
        let line = more.strip_prefix(&*whole).expect("it was appended to");
        assert!(line.len() < 30 && line.ends_with(b"\n"));
        assert_eq!(kept(&path), vips.allotted);
        // Whatever of the last line was written, the rest is read.
        let before = whole.len();
        for end in before..more.len() - 2 {
            fs::write(&path, &more[..end]).unwrap();
            let mut torn = Vips::load(&path).unwrap();
            assert_eq!(torn.allotted.len(), 100, "{end}");
            torn.of(&key(200));
            torn.save().unwrap();
            assert_eq!(kept(&path), torn.allotted);
        }
        // Not for ever.
        let mut vips = Vips::load(&path).unwrap();
        for n in 1000..3000 {
            vips.of(&key(n));
            vips.save().unwrap();
        }
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= MAX_LINES + vips.allotted.len(), "{lines}");
        assert_eq!(kept(&path), vips.allotted);
    }

    #[test]
    fn a_service_that_is_gone_gives_way_when_there_is_no_other_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vips.json");
        let mut vips = Vips::load(&path).unwrap();
        let key = |n: usize| Key::new("shop", format!("s{n}"));
        let all = usize::from(V4_LAST);
        let first = vips.of(&key(0));
        for n in 1..all {
            assert!(!vips.of(&key(n)).is_empty());
        }
        assert!(vips.of(&key(all)).is_empty(), "all are in use");
        vips.release(&key(7));
        assert!(!vips.of(&key(all)).is_empty());
        assert_eq!(vips.of(&key(0)), first);
        assert!(vips.of(&key(7)).is_empty());
        vips.save().unwrap();
        assert_eq!(kept(&path), vips.allotted);
        assert_eq!(vips.allotted.len(), vips.taken.len());
    }

    #[test]
    fn a_file_that_is_not_ours_is_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vips.json");
        // Cut within its first part, all addresses would be allotted anew.
        for text in ["[", "", "\n", "{\"shop/a\": 7, \"shop/b\": 8", "{}\n["] {
            fs::write(&path, text).unwrap();
            let error = Vips::load(&path).unwrap_err().to_string();
            assert!(
                error.contains("vips.json") && error.contains("remove the file"),
                "{text:?}: {error}"
            );
        }
    }
}
