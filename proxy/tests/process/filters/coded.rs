//! What stands behind the filters that code and decode bodies, and how both proxies are compared.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use super::Scenario;
use super::side::{Seen, Side, decoded};
use super::upstream::chunked;

/// Answers as each request says: `x-status`, `x-set` (a field, any number of them), `x-length` of the
/// body, `x-chunked`, `x-code` (the body's coding). `x-got` is what the request accepts. A body of the
/// request comes back as it was before it was coded, with the coding in `x-coding`.
pub fn scripted(tcp: TcpStream) {
    let mut writer = tcp.try_clone().unwrap();
    let mut reader = BufReader::new(tcp);
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if !matches!(reader.read_line(&mut line), Ok(1..)) {
                return;
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let values = |name: &str| {
            let prefix = format!("{name}: ");
            let found = lines.iter().filter_map(|line| line.strip_prefix(&prefix));
            found.map(str::to_owned).collect::<Vec<_>>()
        };
        let value = |name: &str| values(name).into_iter().next();
        let status = value("x-status").unwrap_or_else(|| "200".into());
        let length = value("x-length").map_or(1000, |length| length.parse().unwrap());
        let text = "all of the same text, ".bytes();
        let mut body: Vec<u8> = text.cycle().take(length).collect();
        let is_bodiless = lines[0].starts_with("HEAD") || matches!(&*status, "204" | "304");
        // Envoy joins the values of several fields.
        let accepted = values("accept-encoding").join(",");
        let mut answer = format!("HTTP/1.1 {status} Told\r\nx-got: {accepted}\r\n");
        let sent = match (value("content-length"), value("transfer-encoding")) {
            (_, Some(_)) => chunked(&mut reader),
            (Some(length), None) => {
                let mut sent = vec![0; length.parse().unwrap()];
                reader.read_exact(&mut sent).ok().map(|()| sent)
            }
            (None, None) => Some(Vec::new()),
        };
        // The proxy may refuse a body in its middle.
        let Some(sent) = sent else {
            return;
        };
        if !sent.is_empty() {
            let coding = value("content-encoding").unwrap_or_default();
            answer.push_str(&format!("x-coding: {coding}\r\n"));
            body = decoded(&coding, &sent);
        }
        if let Some(coding) = value("x-code") {
            answer.push_str(&format!("content-encoding: {coding}\r\n"));
            body = coded(&coding, &body);
        }
        for line in lines.iter().filter_map(|line| line.strip_prefix("x-set: ")) {
            answer.push_str(&format!("{line}\r\n"));
        }
        let length = body.len();
        let chunked = value("x-chunked").is_some();
        answer.push_str(&match chunked {
            true => "transfer-encoding: chunked\r\n\r\n".to_owned(),
            false if status == "204" => "\r\n".to_owned(),
            false => format!("content-length: {length}\r\n\r\n"),
        });
        let mut answer = answer.into_bytes();
        match chunked {
            _ if is_bodiless => {}
            true => {
                answer.extend(format!("{length:x}\r\n").bytes());
                answer.extend(body);
                answer.extend(b"\r\n0\r\n\r\n");
            }
            false => answer.extend(body),
        }
        if writer.write_all(&answer).is_err() {
            return;
        }
    }
}

/// A body in a coding; itself when that is not known.
pub fn coded(coding: &str, plain: &[u8]) -> Vec<u8> {
    match coding {
        "gzip" => {
            let config = zlib_rs::DeflateConfig {
                window_bits: 15 + 16,
                ..zlib_rs::DeflateConfig::new(6)
            };
            let mut deflate = zlib_rs::Deflate::new_with_config(config);
            let mut coded = vec![0; plain.len() + 1000];
            let status = deflate.compress(plain, &mut coded, zlib_rs::DeflateFlush::Finish);
            assert_eq!(status.unwrap(), zlib_rs::Status::StreamEnd);
            coded.truncate(deflate.total_out() as usize);
            coded
        }
        "br" => {
            let mut writer = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
            writer.write_all(plain).unwrap();
            writer.into_inner()
        }
        "zstd" => zstd::encode_all(plain, 3).unwrap(),
        _ => plain.to_vec(),
    }
}

/// Sends each request to both, and compares what comes of it. `rows`: method and path, fields separated
/// by `&`, and the coding of the answer, if it has one.
pub fn compare(scenario: &Scenario, rows: &str) {
    let upstream = crate::proxy::upstream(scripted);
    let ours = Side::anyam(scenario, upstream);
    let stock = Side::envoy(scenario, upstream);
    for row in rows.lines().filter(|row| !row.trim().is_empty()) {
        let mut cells = row.split('|').map(str::trim);
        let (target, fields, coding) = (cells.next(), cells.next(), cells.next());
        let fields = fields.unwrap().split('&').map(str::trim);
        let fields: Vec<&str> = fields.filter(|field| !field.is_empty()).collect();
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let request = format!("{} HTTP/1.1\r\nhost: shop\r\n{fields}\r\n", target.unwrap());
        let (ours, stock) = (ours.ask(&request), stock.ask(&request));
        assert_eq!(ours, stock, "Anyam | Envoy, for\n{request}");
        assert_eq!(
            value(&ours, "content-encoding"),
            coding.unwrap(),
            "for\n{request}"
        );
    }
}

pub fn value<'a>(seen: &'a Seen, name: &str) -> &'a str {
    let found = seen.headers.iter().find(|(known, _)| known == name);
    found.map_or("", |(_, value)| value)
}
