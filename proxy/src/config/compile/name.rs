//! `anyam.dns.v1.Name`.

use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::rr::Name as DomainName;
use prost::Message;
use xds_proto::anyam::dns::v1 as pb;

use crate::config::name::{NameRecords, Srv};

/// The host, and its records.
///
/// # Errors
/// What is wrong, with the field's path.
pub fn name(body: &[u8]) -> Result<(String, NameRecords), String> {
    let pb::Name {
        host,
        addresses,
        ttl_seconds,
        services,
    } = pb::Name::decode(body).map_err(|error| format!("not a Name: {error}"))?;
    let services = services.into_iter().enumerate();
    let records = NameRecords {
        addresses: parse(&addresses, "addresses")?,
        services: services
            .map(|(index, service)| srv(service, &format!("services[{index}]")))
            .collect::<Result<_, _>>()?,
        ttl: Duration::from_secs(ttl_seconds.into()),
    };
    Ok((host, records))
}

fn srv(service: pb::Srv, path: &str) -> Result<Srv, String> {
    let pb::Srv {
        target,
        port,
        weight,
        addresses,
    } = service;
    let number = |number: u32, field: &str| {
        u16::try_from(number).map_err(|_| format!("{path}.{field}: {number} is over 65535"))
    };
    if let Err(error) = DomainName::from_ascii(&target) {
        return Err(format!("{path}.target: not a domain name: {error}"));
    }
    Ok(Srv {
        port: number(port, "port")?,
        weight: number(weight, "weight")?,
        addresses: parse(&addresses, &format!("{path}.addresses"))?,
        target,
    })
}

fn parse(addresses: &[String], path: &str) -> Result<Vec<IpAddr>, String> {
    let one = |(index, text): (usize, &String)| {
        text.parse()
            .map_err(|_| format!("{path}[{index}]: not an IP address"))
    };
    addresses.iter().enumerate().map(one).collect()
}
