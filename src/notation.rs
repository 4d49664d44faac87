//! How endpoints and durations are written, in the file and on the command line.
//!
//! Owns their text forms alone. Called by `desired` and the commands that take them as words.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Reads `A`, `A:PORT`, `[A6]`, `[A6]:PORT` or a bare IPv6 address.
pub fn parse_endpoint(text: &str) -> Option<(IpAddr, Option<u16>)> {
    if let Some((address, port)) = parse_plain_endpoint(text.as_bytes()) {
        return Some((address.into(), Some(port)));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some((address, None));
    }
    if let Some(address) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return Some((IpAddr::V6(address.parse().ok()?), None));
    }
    let socket = text.parse::<std::net::SocketAddr>().ok()?;
    // A scope id would be lost.
    let scoped = matches!(socket, std::net::SocketAddr::V6(v6) if v6.scope_id() != 0);
    (!scoped).then(|| (socket.ip(), Some(socket.port())))
}

/// Reads `A.B.C.D:PORT`, which nearly all are and which is none of the other forms, in a third of the time; about
/// everything that does not look like it, and about leading zeros, the standard library decides.
fn parse_plain_endpoint(text: &[u8]) -> Option<(Ipv4Addr, u16)> {
    let (mut address, mut parts) = (0, 0);
    // Of the number that is being read.
    let (mut value, mut digits) = (0, 0);
    for byte in text {
        match byte {
            b'0'..=b'9' if digits == 0 || (value != 0 && value <= 6553) => {
                value = value * 10 + u32::from(byte - b'0');
                digits += 1;
            }
            b'.' | b':' if digits > 0 && value <= 255 && (*byte == b':') == (parts == 3) => {
                address = (address << 8) | value;
                parts += 1;
                (value, digits) = (0, 0);
            }
            _ => return None,
        }
    }
    let port = u16::try_from(value).ok()?;
    (parts == 4 && digits > 0).then_some((Ipv4Addr::from(address), port))
}

/// Reads a number with a unit (ms, s, m, h, d) or plain seconds.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.chars().take_while(char::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let milliseconds = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(milliseconds).map(Duration::from_millis)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::SocketAddrV4;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_read_quickly_is_what_the_standard_library_reads(
            text in "[0-9]{1,3}(\\.[0-9]{1,3}){3}:[0-9]{1,5}|[0-9.:]{1,20}|[0-3]{0,4}(\\.[0-2]{0,4}){2,4}:[0-7]{0,6}[ a]?"
        ) {
            if let Some((address, port)) = parse_plain_endpoint(text.as_bytes()) {
                prop_assert_eq!(text.parse::<SocketAddrV4>(), Ok(SocketAddrV4::new(address, port)));
            }
        }

        #[test]
        fn every_ordinary_endpoint_is_read_quickly(address: u32, port: u16) {
            let socket = SocketAddrV4::new(address.into(), port);
            prop_assert_eq!(parse_plain_endpoint(socket.to_string().as_bytes()), Some((*socket.ip(), port)));
        }
    }
}
