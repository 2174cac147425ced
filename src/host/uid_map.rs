//! Which users there can be: in a user namespace only those of its map. The kernel refuses iptables' owner match for any
//! other, and takes a native rule about one, which then never holds.

use std::ops::Range;

use crate::config::Config;
use crate::config::values::UidRange;
use crate::exit::{Exit, Failure};
use crate::sys::user;

/// Stops a run about users whom there cannot be. Without `/proc` nobody knows.
///
/// # Errors
/// The sidecar's user, or one whose ports are to be left alone, is not in the map.
pub fn check_users(config: &Config, sidecar: u32) -> Result<(), Failure> {
    match user::mapped() {
        Ok(map) if !map.is_empty() => check(&map, config, sidecar),
        _ => Ok(()),
    }
}

/// The first of these users whom there cannot be.
fn first_missing(map: &[Range<u64>], wanted: UidRange) -> Option<u64> {
    let mut next = u64::from(wanted.first);
    for users in map.iter().filter(|users| users.end > u64::from(wanted.first)) {
        if next > u64::from(wanted.last) || !users.contains(&next) {
            break;
        }
        next = users.end;
    }
    (next <= u64::from(wanted.last)).then_some(next)
}

fn check(map: &[Range<u64>], config: &Config, sidecar: u32) -> Result<(), Failure> {
    if first_missing(map, sidecar.into()).is_some() {
        let who = format!("the sidecar's UID {sidecar}");
        return Err(not_mapped(&who, "give the UID of a user who is mapped with --kuma-dp-user"));
    }
    for exclusion in &config.redirect.outbound.exclude_ports_for_uids {
        if let Some(missing) = first_missing(map, exclusion.uids) {
            let who = format!("the UID {missing}, whose ports are to be left alone ('{exclusion}'),");
            return Err(not_mapped(&who, "leave out users that are not mapped"));
        }
    }
    Ok(())
}

fn not_mapped(who: &str, what: &str) -> Failure {
    let message = format!("{who} is not mapped in this user namespace, so no packet can be of that user");
    Failure::new(Exit::Host, message)
        .hint(format!("{what} (/proc/self/uid_map lists them), or add the UID to the map"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values::MAX_UID;

    const ROOT: &[Range<u64>] = std::slice::from_ref(&(0..1));

    fn missing(map: &[Range<u64>], first: u32, last: u32) -> Option<u64> {
        first_missing(map, UidRange { first, last })
    }

    #[test]
    fn every_user_of_a_range_has_to_be_there() {
        assert_eq!(missing(std::slice::from_ref(&(0..4_294_967_295)), 0, MAX_UID), None);
        let podman = [0..1, 1..65537];
        assert_eq!(missing(&podman, 0, 65536), None);
        assert_eq!(missing(&podman, 5678, 5678), None);
        assert_eq!(missing(&podman, 0, 65537), Some(65537));
        let hole = [0..1, 10..15];
        assert_eq!(missing(&hole, 0, 10), Some(1));
        assert_eq!(missing(&hole, 9, 14), Some(9));
        assert_eq!(missing(&hole, 12, 15), Some(15));
        assert_eq!(missing(&hole, 10, 14), None);
        assert_eq!(missing(&hole, 20, 21), Some(20));
        assert_eq!(missing(ROOT, 65534, 65534), Some(65534));
    }

    #[test]
    fn who_is_missing_is_named() {
        let mut config = Config::default();
        assert_eq!(check(ROOT, &config, 0), Ok(()));
        let failure = check(ROOT, &config, 5678).unwrap_err();
        assert_eq!(failure.exit, Exit::Host);
        assert!(failure.message.starts_with("the sidecar's UID 5678 is not mapped"), "{failure}");
        config.redirect.outbound.exclude_ports_for_uids = vec!["tcp:80:0-5".parse().unwrap()];
        let failure = check(ROOT, &config, 0).unwrap_err();
        assert!(failure.message.starts_with("the UID 1, "), "{failure}");
        assert!(failure.message.contains("('tcp:80:0-5')"), "{failure}");
    }
}
