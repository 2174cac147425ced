//! Long lists.

/// So many ports, with commas; no two are neighbours.
pub fn ports(count: u16) -> String {
    let ports: Vec<_> = (0..count).map(|number| (10_000 + 2 * number).to_string()).collect();
    ports.join(",")
}

/// A configuration file that excludes so many addresses and ports of what is sent. No two are neighbours, so that
/// they are no ranges.
pub fn config(addresses: u16, ports: u16) -> String {
    let address = |number: u16| {
        let [high, low] = (2 * number).to_be_bytes();
        format!("198.18.{high}.{low}")
    };
    let addresses: Vec<_> = (0..addresses).map(address).collect();
    format!(
        "redirect:\n  outbound:\n    excludePortsForIPs: [{}]\n    excludePorts: [{}]\n",
        addresses.join(", "),
        self::ports(ports)
    )
}
