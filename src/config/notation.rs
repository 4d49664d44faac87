//! How endpoints and durations are written, in the file and on the command line.
//!
//! Owns their text forms alone. Called by `desired` and the commands that take them as words.

use std::net::IpAddr;
use std::time::Duration;

/// Reads `A`, `A:PORT`, `[A6]`, `[A6]:PORT` or a bare IPv6 address.
pub fn parse_endpoint(text: &str) -> Option<(IpAddr, Option<u16>)> {
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
