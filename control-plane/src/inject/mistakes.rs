//! Values of settings that have the right type and are still not allowed.

use super::settings::{MeshSettings, RedirectSettings};
use super::values;
use crate::identity::is_trust_domain;
use crate::model::manifest::values::check_name;

pub(super) struct Mistake {
    pub(super) field: &'static str,
    pub(super) value: String,
    pub(super) allowed: String,
}

/// The first value that is not allowed. Namespaces may have any name: they are only compared.
pub(super) fn first(settings: &MeshSettings) -> Option<Mistake> {
    texts(settings)
        .or_else(|| numbers(settings))
        .or_else(|| {
            let mut ranges = settings.mesh_cidrs.iter();
            let wrong = ranges.find(|range| !values::is_range(range))?;
            Some(Mistake {
                field: "meshCidrs",
                value: wrong.clone(),
                allowed: values::advice(values::RANGES, wrong),
            })
        })
        .or_else(|| pull_secrets(&settings.image_pull_secrets))
        .or_else(|| lists(&settings.proxy.redirect))
}

fn pull_secrets(names: &[String]) -> Option<Mistake> {
    let mistake = |value: String, allowed: String| Mistake {
        field: "imagePullSecrets",
        value,
        allowed,
    };
    let most = values::MOST_PULL_SECRETS;
    if names.len() > most {
        let value = format!("{} entries", names.len());
        return Some(mistake(value, format!("at most {most} entries")));
    }
    let wrong = names.iter().find(|name| !values::is_name(name))?;
    Some(mistake(wrong.clone(), values::NAME.to_owned()))
}

fn texts(settings: &MeshSettings) -> Option<Mistake> {
    let proxy = &settings.proxy;
    let names = [
        ("controlPlaneName", &settings.control_plane_name),
        ("caConfigMap", &settings.ca_config_map),
    ];
    let names = names.map(|(field, text)| (field, text, values::is_name(text), values::NAME));
    let words = [
        ("tokenAudience", &settings.token_audience),
        ("proxy.image", &proxy.image),
    ];
    let words = words.map(|(field, text)| (field, text, values::is_word(text), values::WORD));
    let (place, domain) = (&settings.control_plane, &settings.trust_domain);
    let level = &proxy.log_level;
    let known = values::LOG_LEVELS.contains(&level.as_str());
    let domain_name = &settings.cluster_domain;
    let is_domain = check_name(domain_name, true).is_ok();
    let others = [
        ("clusterDomain", domain_name, is_domain, values::DOMAIN),
        (
            "controlPlane",
            place,
            values::is_host_port(place),
            "host:port",
        ),
        ("proxy.logLevel", level, known, values::LOG_LEVEL),
        (
            "trustDomain",
            domain,
            is_trust_domain(domain),
            values::TRUST_DOMAIN,
        ),
    ];
    let mut all = names.into_iter().chain(words).chain(others);
    let (field, value, _, allowed) = all.find(|(_, _, good, _)| !good)?;
    Some(Mistake {
        field,
        value: value.clone(),
        allowed: allowed.to_owned(),
    })
}

fn numbers(settings: &MeshSettings) -> Option<Mistake> {
    let proxy = &settings.proxy;
    let seconds = u64::from(settings.token_seconds);
    let all = [
        // The API server takes no less.
        ("tokenSeconds", Some(seconds), 600..=u64::MAX, "600 or more"),
        (
            "proxy.concurrency",
            proxy.concurrency.map(u64::from),
            1..=256,
            "1 to 256",
        ),
        (
            "proxy.drainSeconds",
            proxy.drain_seconds,
            1..=86_400,
            "1 to 86400",
        ),
    ];
    all.into_iter().find_map(|(field, value, range, allowed)| {
        let value = value.filter(|value| !range.contains(value))?.to_string();
        Some(Mistake {
            field,
            value,
            allowed: allowed.to_owned(),
        })
    })
}

type FormatCheck = fn(&str) -> bool;

fn lists(redirect: &RedirectSettings) -> Option<Mistake> {
    let field = "proxy.redirect";
    let (ranges, rules) = (values::MOST_ELEMENTS, values::MOST_RULES);
    let ports = redirect.ports().map(|(_, list)| {
        let good: FormatCheck = values::is_ports;
        (list, ranges, values::PORTS, good)
    });
    let cidrs = redirect.cidrs().map(|(_, list)| {
        let good: FormatCheck = values::is_cidr;
        (list, ranges, values::CIDRS, good)
    });
    let ids = redirect.ids().map(|(_, list)| {
        let good: FormatCheck = values::is_id;
        (list, rules, values::IDS, good)
    });
    let (_, interfaces) = redirect.interfaces();
    let is_interface: FormatCheck = values::is_interface;
    let interfaces = (interfaces, rules, values::INTERFACES, is_interface);
    let mut all = ports
        .into_iter()
        .chain(cidrs)
        .chain(ids)
        .chain([interfaces]);
    all.find_map(|(list, most, allowed, good)| {
        if list.len() > most {
            return Some(Mistake {
                field,
                value: format!("{} entries", list.len()),
                allowed: format!("at most {most} entries"),
            });
        }
        let wrong = list.iter().find(|element| !good(element))?;
        Some(Mistake {
            field,
            value: wrong.clone(),
            allowed: values::advice(allowed, wrong),
        })
    })
}
