//! Stable addresses for services that were given none.
//!
//! A service's place is the hash of its name; when that is taken, the next one. What was allotted
//! is kept in a file, so that it survives a restart and does not depend on the order of arrival.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};

use crate::model::manifest::object::Key;

/// 240.240.0.0/16: reserved (RFC 1112), so in use by no other host.
const V4_NET: [u8; 2] = [240, 240];
/// Usable offsets in it: all but the first and the last address.
const V4_FIRST: u16 = 1;
const V4_LAST: u16 = u16::MAX - 1;
/// fdac:616e:7961:6d00::/64, a unique local prefix ("anyam").
const V6_NET: [u16; 4] = [0xfdac, 0x616e, 0x7961, 0x6d00];

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
    path: Option<PathBuf>,
    dirty: bool,
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
        let allotted: BTreeMap<String, u16> = match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| VipError::Malformed {
                path: path.to_owned(),
                error,
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => {
                return Err(VipError::File {
                    path: path.to_owned(),
                    error,
                });
            }
        };
        let taken = allotted
            .iter()
            .map(|(name, offset)| (*offset, name.clone()))
            .collect();
        Ok(Vips {
            allotted,
            taken,
            path: Some(path.to_owned()),
            dirty: false,
        })
    }

    /// The addresses of a service, IPv4 first. Empty when all are allotted.
    pub fn of(&mut self, key: &Key) -> Vec<IpAddr> {
        let name = key.to_string();
        let offset = match self.allotted.get(&name) {
            Some(offset) => *offset,
            None => match self.probe(&name) {
                Some(offset) => {
                    self.taken.insert(offset, name.clone());
                    self.allotted.insert(name, offset);
                    self.dirty = true;
                    offset
                }
                None => return Vec::new(),
            },
        };
        vec![v4(offset).into(), v6(offset).into()]
    }

    fn probe(&self, name: &str) -> Option<u16> {
        let hash = digest(&SHA256, name.as_bytes());
        let &[high, low, ..] = hash.as_ref() else {
            return None;
        };
        let span = u32::from(V4_LAST - V4_FIRST) + 1;
        let start = u32::from(u16::from_be_bytes([high, low])) % span;
        (0..span)
            .map(|step| V4_FIRST + ((start + step) % span) as u16)
            .find(|offset| !self.taken.contains_key(offset))
    }

    /// Writes what was allotted since the last time, readable by its owner only.
    ///
    /// # Errors
    /// When the file cannot be written; it is tried again the next time.
    pub fn save(&mut self) -> Result<(), VipError> {
        let Some(path) = self.path.clone().filter(|_| self.dirty) else {
            return Ok(());
        };
        let failed = |error| VipError::File {
            path: path.clone(),
            error,
        };
        let text = serde_json::to_vec_pretty(&self.allotted).map_err(|e| failed(e.into()))?;
        let temporary = path.with_extension("json.new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(failed)?;
        file.write_all(&text)
            .and_then(|()| file.sync_all())
            .map_err(failed)?;
        fs::rename(&temporary, &path).map_err(failed)?;
        self.dirty = false;
        Ok(())
    }
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

    #[test]
    fn a_file_that_is_not_ours_is_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vips.json");
        fs::write(&path, "[").unwrap();
        let error = Vips::load(&path).unwrap_err().to_string();
        assert!(
            error.contains("vips.json") && error.contains("remove the file"),
            "{error}"
        );
    }
}
